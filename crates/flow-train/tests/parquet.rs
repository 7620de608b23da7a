//! Tables in Parquet are the tables that they are as text.

#![cfg(feature = "parquet")]

use flow_train::data::{DataSource, Draw, Values};
use parquet::basic::{Compression, ZstdLevel};
use parquet::data_type::{BoolType, ByteArray, ByteArrayType, DoubleType, FloatType, Int64Type};
use parquet::file::properties::WriterProperties;
use parquet::file::writer::SerializedFileWriter;
use parquet::schema::parser::parse_message_type;
use std::path::Path;
use std::sync::Arc;

type Test = Result<(), Box<dyn std::error::Error>>;

const ROWS: usize = 40;

const SCHEMA: &str = "message schema {
    REQUIRED DOUBLE time;
    OPTIONAL FLOAT income;
    REQUIRED INT64 visits;
    REQUIRED BOOLEAN member;
    REQUIRED BYTE_ARRAY site (UTF8);
    OPTIONAL INT64 __index_level_0__;
}";

fn time(i: usize) -> f64 {
    1.7e9 + 0.1 * i as f64
}

fn write(path: &Path, compression: Compression) -> Test {
    let properties = Arc::new(WriterProperties::builder().set_compression(compression).build());
    let mut writer = SerializedFileWriter::new(std::fs::File::create(path)?, Arc::new(parse_message_type(SCHEMA)?), properties)?;
    // Two groups of rows.
    for rows in [0..ROWS / 2, ROWS / 2..ROWS] {
        let mut group = writer.next_row_group()?;
        let mut column = 0;
        while let Some(mut writer) = group.next_column()? {
            let rows = rows.clone();
            let all = vec![1; rows.len()];
            match column {
                0 => writer.typed::<DoubleType>().write_batch(&rows.map(time).collect::<Vec<_>>(), None, None)?,
                1 => {
                    // Row 17 has none.
                    let values: Vec<f32> = rows.clone().filter(|i| *i != 17).map(|i| 0.3 * i as f32).collect();
                    let there: Vec<i16> = rows.map(|i| i16::from(i != 17)).collect();
                    writer.typed::<FloatType>().write_batch(&values, Some(&there), None)?
                }
                2 => writer.typed::<Int64Type>().write_batch(&rows.map(|i| i as i64 * i as i64).collect::<Vec<_>>(), None, None)?,
                3 => writer.typed::<BoolType>().write_batch(&rows.map(|i| i % 3 == 0).collect::<Vec<_>>(), None, None)?,
                4 => {
                    let names: Vec<ByteArray> = rows.map(|i| ["north, \"east\"", "#süd"][i % 2].into()).collect();
                    writer.typed::<ByteArrayType>().write_batch(&names, None, None)?
                }
                _ => writer.typed::<Int64Type>().write_batch(&rows.map(|i| i as i64).collect::<Vec<_>>(), Some(&all), None)?,
            };
            writer.close()?;
            column += 1;
        }
        group.close()?;
    }
    writer.close()?;
    Ok(())
}

#[test]
fn a_table_in_parquet_is_read_as_one() -> Test {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("t.parquet");
    for compression in [Compression::UNCOMPRESSED, Compression::SNAPPY, Compression::ZSTD(ZstdLevel::default())] {
        write(&path, compression)?;
        let text = format!("parquet:{}?label=site&missing=drop&split=none", path.display());
        let source: DataSource = text.parse()?;
        assert_eq!(source.to_string(), text);
        let split = source.open(0)?;
        let note = &split.found.notes[0];
        assert!(note.ends_with("t.parquet: 40 rows of 4 columns (time, income, visits, member), of a Parquet file"), "{note}");
        assert_eq!(split.found.left_out_lines(), ["1 left out: rows without a value in some column (line 19)"]);
        let train = split.train;
        assert_eq!((train.len(), train.classes()), (39, ["#süd", "north, \"east\""].map(str::to_owned).as_slice()));
        let batch = train.batch(&[Draw { epoch: 0, index: 16 }, Draw { epoch: 0, index: 17 }])?;
        // Single precision is the number that it prints as.
        assert_eq!(batch.values, Values::Real(vec![time(16), 4.8, 256.0, 0.0, time(18), 5.4, 324.0, 1.0]));
        assert_eq!((batch.labels, train.row(17)), (vec![Some(1); 2], 18));
    }
    // A bare path is enough, and what is not said is refused as of text.
    let error = path.display().to_string().parse::<DataSource>()?.open(0).unwrap_err().to_string();
    assert!(error.contains("column `site` (6) holds text, such as `north, \"east\"` in line 2"), "{error}");
    Ok(())
}

#[test]
fn broken_files_are_typed_errors() -> Test {
    let folder = tempfile::tempdir()?;
    let path = folder.path().join("t.parquet");
    write(&path, Compression::SNAPPY)?;
    let whole = std::fs::read(&path)?;
    let open = |bytes: &[u8]| -> String {
        std::fs::write(&path, bytes).unwrap();
        let source: DataSource = format!("parquet:{}?drop=site&missing=drop", path.display()).parse().unwrap();
        source.open(0).map_or_else(|e| e.to_string(), |split| split.train.len().to_string())
    };
    assert_eq!(open(&whole), "36");
    for bytes in [&b""[..], b"a,b\n1,2\n", &whole[..whole.len() / 2], &[&whole[..200], &whole[300..]].concat()] {
        let error = open(bytes);
        assert!(error.contains("t.parquet: Parquet: expected a whole file, got "), "{error}");
    }
    // No flipped byte ends the program.
    for at in (0..whole.len()).step_by(3) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x55;
        open(&bytes);
    }
    Ok(())
}
