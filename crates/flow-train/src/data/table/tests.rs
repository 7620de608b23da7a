use super::*;
use crate::data::{Dataset, Draw};
use proptest::prelude::*;

fn parse(text: &[u8], options: &TableOptions) -> Result<Table> {
    read("t.csv".as_ref(), text, options)
}

fn labelled(label: LabelColumn) -> TableOptions {
    TableOptions { label, ..TableOptions::default() }
}

fn strings(names: &[&str]) -> Vec<String> {
    names.iter().map(|&name| name.to_owned()).collect()
}

fn values(table: &Table) -> Result<Vec<f64>> {
    let draws: Vec<Draw> = (0..table.rows.len()).map(|index| Draw { epoch: 0, index }).collect();
    match table.rows.batch(&draws)?.values {
        Values::Real(values) => Ok(values),
        Values::Levels(_) => panic!("tables hold real numbers"),
    }
}

#[test]
fn columns_and_classes_are_told_apart() -> Result<()> {
    let named = |name: &str| LabelColumn::Named(name.to_owned());
    let cases = [
        ("1, 2.5,b\r\n-3e1,0,a\r\n", LabelColumn::Last, vec!["a", "b"], vec![1, 0]),
        ("y,p,q\n10,1,2.5\n9,-30,0", LabelColumn::First, vec!["9", "10"], vec![1, 0]),
        ("p,y,q\n1,10,2.5\n-30,9,0", named("y"), vec!["9", "10"], vec![1, 0]),
        ("1;b;2,5\n-30;a;0\n", named("2"), vec!["a", "b"], vec![1, 0]),
        ("1,2.5\n\n-30,0\n", LabelColumn::None, vec![], vec![]),
    ];
    for (text, label, classes, labels) in cases {
        let set = parse(text.as_bytes(), &labelled(label))?.rows;
        let batch = set.batch(&[0, 1].map(|index| Draw { epoch: 0, index }))?;
        assert_eq!(batch.values, Values::Real(vec![1.0, 2.5, -30.0, 0.0]), "{text}");
        assert_eq!(set.classes(), classes);
        assert_eq!(batch.labels.into_iter().flatten().collect::<Vec<_>>(), labels);
    }
    Ok(())
}

/// Columns are taken by name and in the order asked for; rows keep their number and their name when others are left
/// out.
#[test]
fn columns_are_chosen_by_name_and_rows_keep_their_identity() -> Result<()> {
    let text = b"who,a,b,c\nann,1,2,3\nbob,4,,6\ncid,7,8,9\n";
    let options = TableOptions { id: Some("who".into()), missing: Missing::Drop, ..TableOptions::default() };
    let table = parse(text, &options)?;
    assert_eq!(values(&table)?, [1.0, 2.0, 3.0, 7.0, 8.0, 9.0]);
    assert_eq!((table.rows.row(1), table.rows.item_name(1)), (2, Some("cid".to_owned())));
    assert_eq!(table.found.left_out_lines(), ["1 left out: rows without a value in some column (line 3)"]);
    let names = |table: &Table| table.rows.columns().iter().map(|c| c.name.clone()).collect::<Vec<_>>();
    assert_eq!(names(&table), ["a", "b", "c"]);

    let swapped = parse(text, &TableOptions { columns: strings(&["c", "a"]), ..TableOptions::default() })?;
    assert_eq!((names(&swapped), values(&swapped)?), (strings(&["c", "a"]), vec![3.0, 1.0, 6.0, 4.0, 9.0, 7.0]));
    let dropped = parse(text, &TableOptions { drop: strings(&["who", "3"]), ..TableOptions::default() })?;
    assert_eq!(values(&dropped)?, [1.0, 3.0, 4.0, 6.0, 7.0, 9.0]);
    // Messages count columns as the file does.
    assert_eq!(crate::data::column_name(dropped.rows.columns(), 1), "column `c` (4)");
    Ok(())
}

/// Rows without a class stay where that is asked for, and those without a number do not.
#[test]
fn rows_without_a_class_are_items_without_a_label() -> Result<()> {
    let options = |missing| TableOptions { label: LabelColumn::Last, missing, ..TableOptions::default() };
    let text = b"1.5,2,b\n2.5,3,\n3.5,4,a\n";
    let table = parse(text, &options(Missing::Unlabelled))?;
    let labels = |table: &Table| -> Result<Vec<Option<usize>>> {
        let draws: Vec<Draw> = (0..table.rows.len()).map(|index| Draw { epoch: 0, index }).collect();
        Ok(table.rows.batch(&draws)?.labels)
    };
    assert_eq!((labels(&table)?, table.rows.classes().join(",")), (vec![Some(1), None, Some(0)], "a,b".to_owned()));
    assert!(table.found.notes.iter().any(|note| note.ends_with("1 row has no class: it is an item without a label")), "{:?}", table.found);
    assert_eq!(labels(&parse(text, &options(Missing::Drop))?)?, [Some(1), Some(0)]);
    let refused = parse(text, &options(Missing::Refuse)).unwrap_err().to_string();
    assert!(refused.contains("in line 2: the class 1"), "{refused}");
    let refused = parse(b"1.5,2,b\n2.5,,\n", &options(Missing::Unlabelled)).unwrap_err().to_string();
    assert!(refused.contains("1 of 2 rows has no value") && refused.contains("column 2"), "{refused}");
    Ok(())
}

/// A column without a name that counts the rows is none of the vector's; one of words names them.
#[test]
fn the_index_of_a_data_frame_is_left_out_and_said() -> Result<()> {
    let counted = parse(b",a,b\n0,1.5,2\n1,2.5,3\n", &TableOptions::default())?;
    assert_eq!(values(&counted)?, [1.5, 2.0, 2.5, 3.0]);
    assert!(counted.found.notes[1].contains("counts the rows and is left out"), "{:?}", counted.found);
    let named = parse(b"\"a\" \"b\"\n\"x y\" 1.5 2\n\"z\" 2.5 3\n", &TableOptions::default())?;
    assert_eq!((values(&named)?, named.rows.item_name(0)), (vec![1.5, 2.0, 2.5, 3.0], Some("x y".to_owned())));
    let taken = parse(b",a\n5,1.5\n7,2.5\n", &TableOptions { columns: strings(&["1", "a"]), ..TableOptions::default() })?;
    assert_eq!(values(&taken)?, [5.0, 1.5, 7.0, 2.5]);
    // Lines that end with a separator.
    let ended = parse(b"a,b,\n1.5,2,\n2.5,3,\n", &TableOptions::default())?;
    assert_eq!(values(&ended)?, [1.5, 2.0, 2.5, 3.0]);
    Ok(())
}

#[test]
fn a_compressed_table_and_one_with_a_byte_order_mark_are_read() -> Result<()> {
    use std::io::Write;
    let mut gzip = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    gzip.write_all(b"a,b\n1,2\n").expect("memory");
    for text in [gzip.finish().expect("memory"), b"\xef\xbb\xbfa,b\n1,2\n".to_vec()] {
        let table = parse(&text, &TableOptions::default())?;
        assert_eq!((values(&table)?, table.rows.columns()[0].name.as_str()), (vec![1.0, 2.0], "a"));
    }
    Ok(())
}

#[test]
fn malformed_tables_are_typed_errors_that_name_line_and_column() {
    let text_columns = "t.csv: column `name` (1) holds text, such as `ann` in line 2; column `colour` (3) holds text, such as `red` in line 2: \
                        drop=name,colour leaves them out, label= takes one as classes, id= takes one as names of the rows";
    let missing =
        "t.csv: 1 of 3 rows has no value in some column, the first in line 3: column `b` (2) 1; missing=drop leaves such rows out";
    let cases: [(&str, &[u8], LabelColumn, &str); 15] = [
        ("nothing", b"", LabelColumn::None, "t.csv: holds no items"),
        ("a header alone", b"a,b\n", LabelColumn::None, "t.csv: holds no items"),
        ("only classes", b"a\nb\n", LabelColumn::Last, "csv: columns: expected a column that is left for the vectors, got none, as 1 "),
        ("words", b"name,x,colour\nann,1,red\nbob,2,blue\n", LabelColumn::None, text_columns),
        ("one word", b"1,2\n3,four\n5,6\n", LabelColumn::None, "t.csv:2: expected a finite number in column 2, got `four`"),
        (
            "a word below a header",
            b"a,b\n1,x\n3,4\n5,6\n",
            LabelColumn::None,
            "t.csv:2: expected a finite number in column `b` (2), got `x`",
        ),
        ("missing", b"a,b\n1,2\n3,\n5,6\n", LabelColumn::None, missing),
        ("not a number", b"1,2\n3,nan\n", LabelColumn::None, "t.csv: 1 of 2 rows has no value in some column, the first in line 2"),
        ("overflow", b"1\n2\n1e999\n", LabelColumn::None, "t.csv:3: expected a finite number in column 1, got `1e999`"),
        ("short line", b"1,2\n3,4\n3\n", LabelColumn::None, "t.csv:3: expected 2 fields, as the other lines have, got 1"),
        ("not UTF-8", b"1\n\xff\n", LabelColumn::None, "t.csv:2: expected UTF-8 text, got "),
        ("no such column", b"a,b\n1,2\n", LabelColumn::Named("c".into()), "t.csv: label: no column `c`; there are: a, b"),
        ("no such number", b"1,2\n3,4\n", LabelColumn::Named("3".into()), "t.csv: label: no column `3`; there are: 1, 2"),
        ("a header or not", b"1,x,3\n4,5,6\n7,8,9\n", LabelColumn::None, "t.csv:1: expected numbers, or names of columns"),
        ("an empty column", b"a,b\n1,\n2,\n", LabelColumn::None, "t.csv: column `b` (2) has no values: drop=b leaves it out"),
    ];
    for (case, text, label, message) in cases {
        let error = parse(text, &labelled(label)).expect_err(case).to_string();
        assert!(error.starts_with(message), "{case}: {error}");
    }
}

proptest! {
    #[test]
    fn no_text_panics(junk in proptest::collection::vec(any::<u8>(), 0..100), text in "[0-9,;.\n\"# \ta-e-]{0,60}") {
        for label in [LabelColumn::None, LabelColumn::First, LabelColumn::Last, LabelColumn::Named("1".into())] {
            for header in [None, Some(false), Some(true)] {
                for missing in [Missing::Refuse, Missing::Drop] {
                    let options = TableOptions { label: label.clone(), header, missing, ..TableOptions::default() };
                    let _ = parse(&junk, &options);
                    let _ = parse(text.as_bytes(), &options);
                }
            }
        }
    }
}

/// A text is bounded by what it is unpacked, and read up to the bound.
#[test]
fn texts_are_bounded_packed_or_not() {
    use std::io::Write;
    let text = "1,2\n".repeat(100);
    let mut packed = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::best());
    packed.write_all(text.as_bytes()).unwrap();
    let packed = packed.finish().unwrap();
    assert!(packed.len() < 100);
    for bytes in [text.as_bytes(), &packed] {
        assert_eq!(read_text("t.csv".as_ref(), bytes, 400).unwrap(), text);
        let error = read_text("t.csv".as_ref(), bytes, 399).unwrap_err();
        assert!(matches!(error, DataError::TooLarge { limit: 399, .. }), "{error}");
    }
}

/// A column has one place, and one is left for the vectors.
#[test]
fn columns_have_one_place_each() {
    let text = b"a,b,c\n1,2,3\n4,5,6\n";
    let id = |name: &str| Some(name.to_owned());
    let (one, all) = (strings(&["a"]), strings(&["a", "b", "c"]));
    let default = TableOptions::default();
    let cases = [
        (
            TableOptions { columns: strings(&["b", "b"]), ..default.clone() },
            "csv: columns: expected every column in one place, got `b`, which columns= names too",
        ),
        (TableOptions { columns: one.clone(), drop: one.clone(), ..default.clone() }, "got `a`, which drop= names too"),
        (
            TableOptions { condition: one.clone(), label: LabelColumn::First, ..default.clone() },
            "label: expected every column in one place, got `a`, which condition= names too",
        ),
        (
            TableOptions { id: id("c"), label: LabelColumn::Last, ..default.clone() },
            "id: expected every column in one place, got `c`, which label= names too",
        ),
        (
            TableOptions { drop: all.clone(), ..default.clone() },
            "csv: columns: expected a column that is left for the vectors, got none, as a, b, c are all taken",
        ),
        (TableOptions { condition: all, ..default.clone() }, "got none, as a, b, c are all taken"),
    ];
    for (options, message) in cases {
        let error = parse(text, &options).unwrap_err().to_string();
        assert!(error.ends_with(message), "{error}");
    }
    // Left out twice it is left out.
    assert!(parse(text, &TableOptions { drop: strings(&["a", "a"]), ..default }).is_ok());
}
