use super::*;
use crate::data::{Draw, Values};
use std::fs;

#[test]
fn one_item_can_be_scored_but_not_split() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name);
    fs::write(at("one.csv"), "1,2,3")?;
    let mut array = npy::Writer::new(File::create(at("one.npy"))?, &at("one.npy"), &[1, 3])?;
    array.write(&[1.0, 2.0, 3.0])?;
    array.finish()?;
    image::GrayImage::new(4, 4).save(at("one.png"))?;
    for source in [
        format!("csv:{}", at("one.csv").display()),
        format!("npy:{}", at("one.npy").display()),
        format!("images:{}", folder.path().display()),
    ] {
        let source: DataSource = source.parse()?;
        assert!(matches!(source.open(0), Err(DataError::TooFew { got: 1, .. })), "{source}");
        let split = source.open_any(0)?;
        assert_eq!((split.train.len(), split.test.len()), (0, 1), "{source}");
    }
    Ok(())
}

#[test]
fn some_items_are_taken_and_squares_permuted() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let open = |text: &str| text.parse::<DataSource>().and_then(|source| source.open(0));
    let (all, some) = (open("digits")?, open("digits?take=30,7&permute=4")?);
    assert_eq!((some.train.len(), some.test.len()), (30, 7));
    // Item 3 of 30 is item 150 of 1500, its four squares in another order.
    let values = |set: &dyn Dataset, index| set.batch(&[Draw { epoch: 0, index }]).map(|batch| batch.values);
    let (Values::Levels(mut a), Values::Levels(mut b)) = (values(&*some.train, 3)?, values(&*all.train, 150)?) else { panic!("levels") };
    assert_ne!(a, b);
    a.sort_unstable();
    b.sort_unstable();
    assert_eq!(a, b);
    assert_eq!(some.train.label(3), all.train.label(150));
    // More than there are is all.
    assert_eq!(open("digits?take=9999,1")?.train.len(), 1500);
    for (text, message) in [
        ("digits?take=0", "take: expected N or N,M, numbers of training and test items above 0, got 0"),
        ("digits?take=5,x", "take: expected N or N,M, numbers of training and test items above 0, got 5,x"),
        ("digits?permute=0", "permute: expected at least 1, got 0"),
        ("digits?permute=3", "permute: expected a side of squares that divides"),
        ("toy:rings?permute=1", "permute: expected pictures, got items of 2"),
    ] {
        let error = open(text).map(|split| split.train.len()).unwrap_err().to_string();
        assert!(error.contains(message), "{text}: {error}");
    }
    Ok(())
}

#[test]
fn a_source_prints_as_it_was_written() -> Result<()> {
    for text in [
        "digits",
        "digits:?split=hash:0.2",
        "idx:a/train-images.gz",
        "idx:a/train-images,b/train-labels",
        "idx:a/train-images,b/train-labels?test=c,d",
        "idx:a/train%2Cimages?split=every-tenth",
        "cifar10:data/cifar",
        "images:photos",
        "images:photos?size=64",
        "images:photos?size=32&crop=random&crops=100&resize=1&grey=1&test=W*.jpg,?.png&skip-bad=1&cache=64",
        "images:C:\\photos?grey=1",
        "images:what%3F&100%25?split=none",
        "npy:x.npy",
        "npy:x.npy?layout=hwc&levels=2&test=y.npy",
        "npz:m.npz?x=x_train&y=y_train&test=x_test,y_test&layout=chw",
        "npz:m.npz?y=labels&c=temperature&test=x_test,,c_test",
        "safetensors:m.st?y=labels&split=last-tenth",
        "csv:magic.dat?label=last",
        "csv:t.csv?label=first&header=1",
        "csv:t.csv?label=kind&condition=heat,a%2Cb&id=name",
        "csv:t.csv?label=%66irst&id=a%26b&columns=x,y%2Cz&drop=p%25&sep=tab&header=0&missing=drop&test=u.csv",
        "toy:two-moons",
        "toy:rings?n=64&noise=0.125",
        "toy:rings?n=64&take=9",
        "digits:?split=none&take=100,50&permute=2",
    ] {
        let source: DataSource = text.parse()?;
        assert_eq!(source.to_string(), text);
        let json = serde_json::to_string(&source).expect("a string");
        assert_eq!(serde_json::from_str::<DataSource>(&json).expect("the same"), source);
    }
    for (text, canonical) in [
        ("toy:circles?n=10000&", "toy:circles"),
        ("images:p?crop=center&size=8&grey=0", "images:p?size=8"),
        ("digits?split=none", "digits:?split=none"),
        ("wine.csv", "csv:wine.csv"),
        ("a/wine.data?label=last", "csv:a/wine.data?label=last"),
        ("file:wine.csv", "csv:wine.csv"),
        ("file:///data/x.npy", "npy:/data/x.npy"),
        ("C:\\data\\wine.csv", "csv:C:\\data\\wine.csv"),
        ("train-images-idx3-ubyte.gz,train-labels-idx1-ubyte.gz", "idx:train-images-idx3-ubyte.gz,train-labels-idx1-ubyte.gz"),
        ("csv:t.csv?sep=;", "csv:t.csv?sep=semicolon"),
    ] {
        assert_eq!(text.parse::<DataSource>()?.to_string(), canonical);
    }
    // A folder says by itself that it holds pictures, and ~ is the home folder.
    let folder = tempfile::tempdir().expect("a folder");
    let bare = folder.path().display().to_string();
    assert_eq!(bare.parse::<DataSource>()?.to_string(), format!("images:{bare}"));
    let home = std::env::home_dir().expect("a home");
    assert_eq!("csv:~/t.csv".parse::<DataSource>()?.path(), Some(home.join("t.csv").as_path()));
    Ok(())
}

#[test]
fn errors_list_what_is_known() {
    let form = "A source is KIND:PATH with one of the kinds digits, idx, cifar10, images, npy, npz, safetensors, csv, parquet, toy";
    let unknown = |got: &str, hint: &str| format!("no kind of data `{got}`; {hint}{form}");
    let encoded = "; a ? or & in a name is written %3F or %26";
    let cases = [
        ("", unknown("", "")),
        ("mnist:x", unknown("mnist", "did you mean idx:x? ")),
        ("cvs:wine.csv", unknown("cvs", "did you mean csv:wine.csv? ")),
        ("imges:photos", unknown("imges", "did you mean images:photos? ")),
        ("digitz", unknown("digitz", "did you mean digits? ")),
        ("parket:x", unknown("parket", "did you mean parquet:x? ")),
        ("wine.xlsx", unknown("wine.xlsx", "")),
        ("digits:8", "digits: path: expected nothing, got 8".to_owned()),
        ("idx:", "idx: path: expected a file or folder, got nothing".to_owned()),
        ("idx:a,", "idx: path: expected IMAGES or IMAGES,LABELS, got a,".to_owned()),
        ("cifar10:d?size=3", format!("cifar10: no option `size`; there are none{encoded}")),
        (
            "csv:f?labels=last",
            format!("csv: no option `labels`; there are: label, condition, id, columns, drop, sep, header, missing, test, split{encoded}"),
        ),
        ("csv:f?label", "csv: label: expected a value, got nothing".to_owned()),
        ("csv:f?sep=xx", "csv: sep: expected comma, semicolon, tab, bar, blank, or the character itself, got xx".to_owned()),
        ("csv:f?test=g&split=none", "csv: split: expected none beside test=, which says what the test part is, got none".to_owned()),
        ("csv:f?split=half", format!("csv: split: expected {}, got half", SplitOption::EXPECTED)),
        ("images:d?size=8&size=9", "images: size: expected one value, got two".to_owned()),
        ("images:d?size=-8", "images: size: expected a number, got -8".to_owned()),
        ("images:d?grey=yes", "images: grey: expected 1 or 0, got yes".to_owned()),
        ("toy:moons", "toy: name: expected two-moons or eight-gaussians or checkerboard or circles or rings, got moons".to_owned()),
    ];
    for (text, message) in cases {
        assert_eq!(text.parse::<DataSource>().expect_err(text).to_string(), message);
    }
}

/// Train and test keys are found by themselves, with labels; a rule written out stays the same whatever lies beside the
/// file.
#[test]
fn parts_of_a_table_and_rules_that_are_written_out() -> std::result::Result<(), Box<dyn std::error::Error>> {
    let folder = tempfile::tempdir()?;
    let at = |name: &str| folder.path().join(name).display().to_string();
    let rows = |n: usize| (0..n).map(|i| format!("{i}.5,{},{}\n", i * i, ["a", "b"][i % 2])).collect::<Vec<_>>().concat();
    fs::write(at("train.csv"), format!("x,y,kind\n{}", rows(30)))?;
    // The same columns in another order, and a class that the training file has not.
    fs::write(at("test.csv"), "kind,y,x\nc,1,2.5\na,3,4.5\n")?;
    let source: DataSource = format!("csv:{}?label=kind&test={}", at("train.csv"), at("test.csv")).parse()?;
    let split = source.open(0)?;
    assert_eq!((split.train.len(), split.test.len()), (30, 2));
    let batch = split.test.batch(&[0, 1].map(|index| Draw { epoch: 0, index }))?;
    assert_eq!(batch.values, super::super::Values::Real(vec![2.5, 1.0, 4.5, 3.0]));
    assert_eq!((batch.labels, split.train.classes().join(",")), (vec![Some(2), Some(0)], "a,b,c".to_owned()));
    assert_eq!(source.with_rule(&split.rule), source);

    let plain: DataSource = format!("csv:{}?label=kind", at("train.csv")).parse()?;
    let every = plain.open(0)?;
    let written = plain.with_rule(&every.rule);
    assert!(written.to_string().ends_with("&split=every-tenth"), "{written}");
    assert_eq!(written.open(0)?.test.len(), every.test.len());
    for (option, count) in [("last-tenth", 3), ("none", 0)] {
        let source: DataSource = format!("{plain}&split={option}").parse()?;
        assert_eq!(source.open(0)?.test.len(), count, "{option}");
    }
    // By hash a row stays in its part when others come.
    let hashed = |rows: &str| -> std::result::Result<Vec<String>, Box<dyn std::error::Error>> {
        fs::write(at("grown.csv"), format!("x,y,kind\n{rows}"))?;
        let source: DataSource = format!("csv:{}?label=kind&id=y&split=hash:0.5", at("grown.csv")).parse()?;
        let test = source.open(0)?.test;
        Ok((0..test.len()).filter_map(|i| test.item_name(i)).collect())
    };
    let (few, many) = (hashed(&rows(20))?, hashed(&format!("{}{}", rows(20), "0.1,777,a\n0.2,778,b\n"))?);
    assert!(!few.is_empty() && few.len() < 20 && many.starts_with(&few), "{few:?} {many:?}");
    Ok(())
}
