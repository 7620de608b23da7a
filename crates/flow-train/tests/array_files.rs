//! Files of arrays and tables, opened through sources as text: items, labels and the split arrive together.

use std::io::Write;

use flow_train::data::{DataError, DataSource, Draw, ItemShape, SplitRule, Values};
use safetensors::{Dtype, tensor::TensorView};

type Test = Result<(), Box<dyn std::error::Error>>;

fn npy(descr: &str, shape: &str, data: &[u8]) -> Vec<u8> {
    let header = format!("{{'descr': '{descr}', 'fortran_order': False, 'shape': ({shape}), }}\n");
    let length = u16::try_from(header.len()).unwrap_or(0).to_le_bytes();
    [b"\x93NUMPY\x01\x00", &length[..], header.as_bytes(), data].concat()
}

#[test]
fn every_file_of_arrays_gives_the_same_split() -> Test {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    // Twelve grey pictures of 1×2 pixels (i, i), and their labels i mod 3.
    let pixels: Vec<u8> = (0..12).flat_map(|i| [i, i]).collect();
    let labels: Vec<u8> = (0..12i64).flat_map(|i| (i % 3).to_le_bytes()).collect();
    let (x, y) = (npy("|u1", "12, 1, 2", &pixels), npy("<i8", "12,", &labels));

    std::fs::write(at("x.npy"), &x)?;
    let mut zip = zip::ZipWriter::new(std::fs::File::create(at("a.npz"))?);
    for (name, array) in [("images.npy", &x), ("labels.npy", &y)] {
        zip.start_file(name, zip::write::SimpleFileOptions::default())?;
        zip.write_all(array)?;
    }
    zip.finish()?;
    let tensors =
        [("x", TensorView::new(Dtype::U8, vec![12, 1, 2], &pixels)?), ("classes", TensorView::new(Dtype::I64, vec![12], &labels)?)];
    std::fs::write(at("a.safetensors"), safetensors::serialize(tensors, None)?)?;
    let lines: String = (0..12).fold(String::new(), |all, i| format!("{all}{i}, {i}, {}\n", i % 3));
    std::fs::write(at("t.csv"), lines)?;

    let image = ItemShape::Image { channels: 1, height: 1, width: 2 };
    let cases = [
        ("npy", "x.npy", "", image, None),
        ("npz", "a.npz", "?x=images&y=labels", image, Some(0)),
        ("safetensors", "a.safetensors", "?y=classes", image, Some(0)),
        ("csv", "t.csv", "?label=last", ItemShape::Vector { dims: 2 }, Some(0)),
    ];
    for (kind, file, options, shape, labels) in cases {
        let text = format!("{kind}:{}{options}", at(file).display());
        let split = text.parse::<DataSource>()?.open(0)?;
        assert_eq!((split.train.len(), split.test.len(), split.rule), (11, 1, SplitRule::EveryTenth), "{text}");
        assert_eq!(split.train.shape(), shape, "{text}");
        let batch = split.test.batch(&[Draw { epoch: 0, index: 0 }])?;
        let expected = if kind == "csv" { Values::Real(vec![9.0; 2]) } else { Values::Levels(vec![9; 2]) };
        assert_eq!((batch.values, batch.labels), (expected, vec![labels]), "{text}");
    }

    let wrong = |text: &str| text.replace("DIR", &dir.path().display().to_string()).parse::<DataSource>()?.open(0);
    assert!(matches!(wrong("npz:DIR/a.npz"), Err(DataError::MissingKey { key, known, .. }) if key == "x" && known == ["images", "labels"]));
    assert!(matches!(wrong("npz:DIR/a.npz?x=labels"), Err(DataError::Header { field: "shape", .. })));
    assert!(matches!(wrong("npz:DIR/a.npz?x=images&y=images"), Err(DataError::Header { field: "shape of labels", .. })));
    assert!(matches!(wrong("npy:DIR/none.npy"), Err(DataError::Io { .. })));
    Ok(())
}

/// Numbers that items are conditioned on, beside their values: an array of one or of several numbers an item, or
/// columns of a table.
#[test]
fn conditions_come_with_their_items() -> Test {
    let dir = tempfile::tempdir()?;
    let at = |name: &str| dir.path().join(name);
    let floats = |values: &[f64]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
    let count = |f: fn(f64) -> f64, len: i32| (0..len).map(|i| f(f64::from(i))).collect::<Vec<f64>>();
    let (x, one, two) = (count(|i| i, 24), count(|i| 100.0 + i, 12), count(|i| 10.0 * i, 24));
    let mut zip = zip::ZipWriter::new(std::fs::File::create(at("a.npz"))?);
    let arrays = [
        ("x.npy", npy("<f8", "12, 2", &floats(&x))),
        ("one.npy", npy("<f8", "12,", &floats(&one))),
        ("two.npy", npy("<f8", "12, 2", &floats(&two))),
        ("few.npy", npy("<f8", "3,", &floats(&one[..3]))),
        ("xt.npy", npy("<f8", "1, 2", &floats(&[7.0, 8.0]))),
        ("ct.npy", npy("<f8", "1,", &floats(&[9.0]))),
        ("nan.npy", npy("<f8", "12,", &floats(&[f64::NAN; 12]))),
    ];
    for (name, array) in &arrays {
        zip.start_file(*name, zip::write::SimpleFileOptions::default())?;
        zip.write_all(array)?;
    }
    zip.finish()?;
    let rows = (0..12).map(|i| format!("{},{},{},k{}", 100 + i, 2 * i, 2 * i + 1, i % 2));
    std::fs::write(at("t.csv"), std::iter::once("t,a,b,kind".to_owned()).chain(rows).collect::<Vec<_>>().join("\n"))?;
    let open = |text: &str| text.replace("DIR", &dir.path().display().to_string()).parse::<DataSource>()?.open(0);

    for (text, names, test_values, conditions) in [
        ("npz:DIR/a.npz?c=one", vec!["one"], vec![18.0, 19.0], vec![109.0]),
        ("npz:DIR/a.npz?c=two", vec!["two.1", "two.2"], vec![18.0, 19.0], vec![180.0, 190.0]),
        ("npz:DIR/a.npz?c=one&test=xt,,ct", vec!["one"], vec![7.0, 8.0], vec![9.0]),
        ("csv:DIR/t.csv?label=kind&condition=t", vec!["t"], vec![18.0, 19.0], vec![109.0]),
        ("csv:DIR/t.csv?condition=b,t&drop=kind", vec!["b", "t"], vec![18.0], vec![19.0, 109.0]),
        ("csv:DIR/t.csv?condition=b&columns=a", vec!["b"], vec![18.0], vec![19.0]),
    ] {
        let split = open(text)?;
        let found: Vec<&str> = split.train.conditions().iter().map(|column| column.name.as_str()).collect();
        assert_eq!(found, names, "{text}");
        let batch = split.test.batch(&[Draw { epoch: 0, index: 0 }])?;
        assert_eq!((batch.values, batch.conditions), (Values::Real(test_values), conditions), "{text}");
    }
    assert!(matches!(open("npz:DIR/a.npz?c=few"), Err(DataError::Header { field: "shape of conditions", .. })));
    assert!(matches!(open("npz:DIR/a.npz?c=none"), Err(DataError::MissingKey { key, .. }) if key == "none"));
    assert!(matches!(open("npz:DIR/a.npz?c=nan"), Err(DataError::Value { item: 0, .. })));
    assert!(matches!(open("npz:DIR/a.npz?c=one&test=xt"), Err(DataError::PartsDiffer { .. })));
    assert!(matches!(open("csv:DIR/t.csv?condition=heat"), Err(DataError::NoColumn { option: "condition", .. })));
    assert!(matches!(open("csv:DIR/t.csv?condition=kind"), Err(DataError::TextColumns { .. })));
    Ok(())
}
