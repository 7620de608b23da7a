//! Folders of pictures on disk: windows, classes, splits, and files that do not fit.

use std::path::Path;

use flow_train::data::{Crop, DataError, DataSource, Dataset, Depth, Draw, ImageFolder, ItemShape, Items, Split, SplitRule, Values};
use image::{DynamicImage, Rgb, RgbImage, Rgba, RgbaImage};

type Test = Result<(), Box<dyn std::error::Error>>;

/// Pixel (x, y) is (x, y, `blue`): a window shows where it was cut and of what.
fn coordinates(width: u32, height: u32, blue: u8) -> RgbImage {
    RgbImage::from_fn(width, height, |x, y| Rgb([u8::try_from(x).unwrap_or(255), u8::try_from(y).unwrap_or(255), blue]))
}

fn levels(set: &dyn Dataset, draws: &[Draw]) -> Vec<u8> {
    match set.batch(draws).map(|b| b.values) {
        Ok(Values::Levels(v)) => v,
        other => panic!("{other:?}"),
    }
}

fn all(set: &dyn Dataset, epoch: u64) -> Vec<Draw> {
    (0..set.len()).map(|index| Draw { epoch, index }).collect()
}

fn save(dir: &Path, name: &str, image: impl Into<DynamicImage>) -> Result<(), image::ImageError> {
    let path = dir.join(name);
    std::fs::create_dir_all(path.parent().unwrap_or(dir))?;
    image.into().save(path)
}

#[test]
fn random_windows_are_a_function_of_the_seed_and_the_visit() -> Test {
    let dir = tempfile::tempdir()?;
    for (i, blue) in [10, 20, 30, 40].into_iter().enumerate() {
        save(dir.path(), &format!("{i}.png"), coordinates(40, 30, blue))?;
    }
    let folder = ImageFolder { size: Some(8), crop: Crop::Random, crops: 50, test: Some("3.*".into()), ..ImageFolder::new(dir.path()) };
    let split = folder.open(7)?;
    assert_eq!((split.train.len(), split.test.len()), (150, 50));
    assert_eq!(split.train.shape(), ItemShape::Image { channels: 3, height: 8, width: 8 });
    assert_eq!(split.train.item_name(60), Some(dir.path().join("1.png").display().to_string()));

    let train = &*split.train;
    let (first, second) = (levels(train, &all(train, 0)), levels(train, &all(train, 1)));
    assert_ne!(first, second);
    let mut corners = std::collections::BTreeSet::new();
    for (item, window) in first.chunks(3 * 64).enumerate() {
        // Channel by channel, row by row: x grows along rows, y along columns, blue is that of the file.
        let (left, top) = (window[0], window[64]);
        corners.insert((left, top));
        assert!(left <= 32 && top <= 22);
        for at in 0..64u8 {
            let pixel = [0, 64, 128].map(|plane| window[plane + usize::from(at)]);
            assert_eq!(pixel, [left + at % 8, top + at / 8, 10 * (u8::try_from(item)? / 50 + 1)]);
        }
    }
    assert!(corners.len() > 100, "{} of 150 windows differ", corners.len());

    // Not on the batch, the cache or the opening; but on the seed. The test part has no epochs.
    let uncached = ImageFolder { cache: 0, ..folder.clone() }.open(7)?;
    let backwards: Vec<_> = all(train, 0).into_iter().rev().collect();
    let again = levels(&*uncached.train, &backwards);
    assert!(first.chunks(192).eq(again.chunks(192).rev()));
    assert_ne!(levels(&*folder.open(8)?.train, &all(train, 0)), first);
    let test = &*split.test;
    assert_eq!(levels(test, &all(test, 0)), levels(test, &all(test, 1)));
    Ok(())
}

#[test]
fn subfolders_are_classes_and_every_tenth_file_is_a_test_file() -> Test {
    let dir = tempfile::tempdir()?;
    for i in 0..20 {
        let class = if i < 12 { "cat" } else { "dog" };
        save(dir.path(), &format!("{class}/{i:02}.png"), coordinates(4, 4, i))?;
    }
    std::fs::write(dir.path().join("cat/notes.txt"), "no picture")?;
    std::fs::write(dir.path().join("cat/._00.png"), "hidden")?;
    let split = ImageFolder::new(dir.path()).open(0)?;
    assert_eq!((split.train.len(), split.test.len(), &split.rule), (18, 2, &SplitRule::EveryTenth));
    let batch = split.test.batch(&all(&*split.test, 0))?;
    assert_eq!(batch.labels, [Some(0), Some(1)]);
    assert_eq!(split.test.classes(), ["cat", "dog"]);
    let Values::Levels(pixels) = batch.values else { panic!("pictures have levels") };
    assert_eq!((pixels[32], pixels[48 + 32]), (9, 19));

    // A pattern with a slash goes by the path inside the folder.
    let by_path = ImageFolder { test: Some("dog/1?.png".into()), ..ImageFolder::new(dir.path()) }.open(0)?;
    assert_eq!((by_path.train.len(), by_path.test.len()), (12, 8));
    // One file beside the subfolders is left out and said, and the classes stay.
    save(dir.path(), "stray.png", coordinates(4, 4, 0))?;
    let split = ImageFolder::new(dir.path()).open(0)?;
    assert_eq!((split.train.classes().len(), split.train.len() + split.test.len()), (2, 20));
    let lines = split.found.left_out_lines();
    assert!(lines.iter().any(|line| line.contains("without a class (stray.png)")), "{lines:?}");
    // Many of them say that the folders are no classes.
    for i in 0..5 {
        save(dir.path(), &format!("more{i}.png"), coordinates(4, 4, 0))?;
    }
    let split = ImageFolder::new(dir.path()).open(0)?;
    assert_eq!((split.train.classes().len(), split.train.len() + split.test.len()), (0, 26));
    assert!(split.found.warnings[0].contains("6 pictures lie in no folder of a class"), "{:?}", split.found.warnings);
    Ok(())
}

#[test]
fn formats_transparency_grey_and_scaling() -> Test {
    let dir = tempfile::tempdir()?;
    // Half transparent black over white is the grey 127 or 128; the same as plain colours in three formats.
    save(dir.path(), "a.png", RgbaImage::from_pixel(16, 8, Rgba([0, 0, 0, 128])))?;
    save(dir.path(), "b.webp", RgbImage::from_pixel(16, 8, Rgb([127, 127, 127])))?;
    save(dir.path(), "c.jpg", RgbImage::from_pixel(16, 8, Rgb([127, 127, 127])))?;
    // Told by content, not by name.
    std::fs::copy(dir.path().join("c.jpg"), dir.path().join("d.png"))?;
    for name in ["e.gif", "f.bmp", "g.tif", "h.ppm"] {
        save(dir.path(), name, RgbImage::from_pixel(16, 8, Rgb([127, 127, 127])))?;
    }
    for grey in [false, true] {
        let split = ImageFolder { grey, ..ImageFolder::new(dir.path()) }.open(0)?;
        let channels = if grey { 1 } else { 3 };
        assert_eq!(split.train.shape(), ItemShape::Image { channels, height: 8, width: 16 });
        for set in [&*split.train, &*split.test] {
            assert!(levels(set, &all(set, 0)).iter().all(|v| v.abs_diff(127) <= 2));
        }
    }
    let scaled = ImageFolder { size: Some(4), crop: Crop::Center, resize: true, ..ImageFolder::new(dir.path()) }.open(0)?;
    assert_eq!(scaled.train.shape(), ItemShape::Image { channels: 3, height: 4, width: 4 });
    assert!(levels(&*scaled.train, &all(&*scaled.train, 0)).iter().all(|v| v.abs_diff(127) <= 2));
    Ok(())
}

/// Every item of both parts by its row, with its first value (`blue` of its picture) and its class.
fn by_row(split: &Split) -> Vec<(usize, u8, Option<String>)> {
    let items = Items::of(split, split.train.held_out());
    let batch = items.batch(&all(&items, 0)).unwrap();
    let Values::Levels(pixels) = batch.values else { panic!("pictures have levels") };
    let dims = items.shape().dims();
    let class = |i: usize| batch.labels[i].map(|label| items.classes()[label].clone());
    (0..items.len()).map(|i| (items.row(i), pixels[i * dims + dims * 2 / 3], class(i))).collect()
}

/// Folders named after parts are the parts, whatever is in them, and their folders are the classes.
#[test]
fn folders_named_after_parts_are_the_parts() -> Test {
    let dir = tempfile::tempdir()?;
    for (i, name) in ["train/cat/a", "train/cat/b", "train/dog/c", "val/cat/d", "test/dog/e", "test/cat/f"].iter().enumerate() {
        save(dir.path(), &format!("{name}.png"), coordinates(4, 4, u8::try_from(i)?))?;
    }
    let source: DataSource = format!("images:{}", dir.path().display()).parse()?;
    let split = source.open(0)?;
    assert_eq!((split.train.len(), split.test.len(), &split.rule), (4, 2, &SplitRule::Folders));
    assert_eq!((split.train.classes(), split.train.held_out()), (&["cat".to_owned(), "dog".to_owned()][..], &[3][..]));
    // In the order of the folder: test, train, val.
    let class = |name: &str| Some(name.to_owned());
    let expected = [
        (0, 5, class("cat")),
        (1, 4, class("dog")),
        (2, 0, class("cat")),
        (3, 1, class("cat")),
        (4, 2, class("dog")),
        (5, 3, class("cat")),
    ];
    assert_eq!(by_row(&split), expected);
    let (held, kept) = flow_train::hold_out(&*split.train, &flow_train::Settings { validation: 0.5, ..flow_train::Settings::default() });
    assert_eq!((held, kept), (vec![3], vec![0, 1, 2]));
    assert!(source.with_rule(&split.rule).to_string().ends_with("?split=folders"));

    // Another rule that is said makes them classes; another folder beside them is asked about; without test pictures
    // the validation folder is it.
    let classes: DataSource = format!("{source}?split=every-tenth").parse()?;
    assert_eq!(classes.open(0)?.train.classes(), ["test", "train", "val"]);
    save(dir.path(), "extra/x.png", coordinates(4, 4, 9))?;
    let question = source.open(0).unwrap_err().to_string();
    assert!(question.contains("beside `extra`: split=folders takes the parts"), "{question}");
    let forced: DataSource = format!("{source}?split=folders").parse()?;
    assert_eq!(forced.open(0)?.found.left_out_count(), 1);
    std::fs::remove_dir_all(dir.path().join("extra"))?;
    std::fs::remove_dir_all(dir.path().join("test"))?;
    assert_eq!((source.open(0)?.test.len(), source.open(0)?.train.held_out().len()), (1, 0));
    Ok(())
}

/// Links are followed, but not in a circle; what is left out is counted by reason.
#[cfg(unix)]
#[test]
fn links_are_followed_and_what_is_left_out_is_counted() -> Test {
    use std::os::unix::fs::symlink;
    let dir = tempfile::tempdir()?;
    for i in 0..3 {
        save(dir.path(), &format!("set/dogs/{i}.png"), coordinates(4, 4, i))?;
        save(dir.path(), &format!("elsewhere/{i}.png"), coordinates(4, 4, 10 + i))?;
    }
    let set = dir.path().join("set");
    symlink("../elsewhere", set.join("cats"))?;
    symlink("..", set.join("dogs/circle"))?;
    symlink("nowhere", set.join("dogs/broken.png"))?;
    for name in ["dogs/a.txt", "dogs/b.txt", "dogs/.hidden.png", "dogs/README"] {
        std::fs::write(set.join(name), "no picture")?;
    }
    let split = ImageFolder::new(&set).open(0)?;
    let cats: Vec<_> =
        by_row(&split).into_iter().filter(|(_, _, class)| class.as_deref() == Some("cats")).map(|(_, blue, _)| blue).collect();
    assert_eq!(cats, [10, 11, 12]);
    let expected = ["a link that leads back", "a link that leads nowhere", "hidden", "no ending", "the ending .txt"];
    let found: Vec<_> = split.found.left_out().map(|(reason, count, _)| (reason.to_owned(), count)).collect();
    for (reason, (found, count)) in expected.iter().zip(&found) {
        assert!(found.starts_with(reason) && *count == if reason.contains(".txt") { 2 } else { 1 }, "{reason}: {found} {count}");
    }
    assert_eq!(found.len(), expected.len());
    Ok(())
}

/// A JPEG that is cut off anywhere in its data is as broken as a PNG; a whole one is not, whatever follows it.
#[test]
fn a_cut_jpeg_is_no_picture() -> Test {
    let dir = tempfile::tempdir()?;
    for i in 0..4 {
        save(dir.path(), &format!("{i}.jpg"), coordinates(64, 64, 40 * i))?;
    }
    let whole = std::fs::read(dir.path().join("0.jpg"))?;
    std::fs::write(dir.path().join("0.jpg"), [&whole, &b"and more"[..]].concat())?;
    let folder = ImageFolder { skip_bad: true, ..ImageFolder::new(dir.path()) };
    assert!(folder.open(0)?.skipped.is_empty());
    // Behind the header, which a file that is cut off in it has not.
    let scan = whole.windows(2).position(|mark| mark == [0xff, 0xda]).ok_or("a scan")? + 20;
    for share in [0, 40, 99] {
        std::fs::write(dir.path().join("1.jpg"), &whole[..scan + (whole.len() - 2 - scan) * share / 100])?;
        let split = folder.open(0)?;
        assert_eq!((split.train.len() + split.test.len(), split.skipped.len()), (3, 1), "{share} %");
        let drawn = ImageFolder { skip_bad: false, ..folder.clone() }.open(0)?;
        let error = drawn.train.batch(&all(&*drawn.train, 0)).unwrap_err();
        assert!(error.to_string().contains("1.jpg: not a readable picture: cut off"), "{error}");
    }
    Ok(())
}

#[test]
fn files_that_do_not_fit_are_named_or_skipped() -> Test {
    let dir = tempfile::tempdir()?;
    for i in 0..4 {
        save(dir.path(), &format!("good{i}.png"), coordinates(20, 20, i))?;
    }
    let text = format!("images:{}?size=16", dir.path().display());
    let open = |options: &str| format!("{text}{options}").parse::<DataSource>().and_then(|s| s.open(0));
    assert!(open("").is_ok());

    save(dir.path(), "small.png", coordinates(20, 15, 0))?;
    let small = dir.path().join("small.png");
    assert!(matches!(open(""), Err(DataError::ImageSize { path, got: (20, 15), .. }) if path == small));
    let whole = ImageFolder::new(dir.path()).open(0);
    assert!(matches!(whole, Err(DataError::ImageSize { path, .. }) if path == small), "mixed sizes without crops");
    assert_eq!(open("&resize=1")?.train.len(), 4);

    // A header that reads and a body that does not: found when drawn, or at opening if told to skip.
    let good = std::fs::read(dir.path().join("good0.png"))?;
    std::fs::remove_file(&small)?;
    std::fs::write(dir.path().join("cut.png"), &good[..good.len() / 2])?;
    let split = open("&test=good*")?;
    let cut = dir.path().join("cut.png");
    assert!(matches!(split.train.batch(&all(&*split.train, 0)), Err(DataError::Image { path, .. }) if path == cut));
    std::fs::write(dir.path().join("junk.jpg"), "junk")?;
    assert!(matches!(open(""), Err(DataError::Image { path, .. }) if path == dir.path().join("junk.jpg")));
    save(dir.path(), "small.png", coordinates(20, 15, 0))?;
    let split = open("&skip-bad=1")?;
    let names: Vec<_> = split.skipped.iter().filter_map(|s| s.path.file_name()).collect();
    assert_eq!(names, ["cut.png", "junk.jpg", "small.png"]);
    assert_eq!(split.train.len() + split.test.len(), 4);
    split.train.batch(&all(&*split.train, 0))?;

    let empty = tempfile::tempdir()?;
    assert!(matches!(ImageFolder::new(empty.path()).open(0), Err(DataError::Missing { .. })));
    assert!(matches!(ImageFolder::new(empty.path().join("none")).open(0), Err(DataError::Io { .. })));
    for bad in [
        "&crops=2",
        "&skip-bad=1&crop=random&crops=100000000",
        "&skip-bad=1&test=nothing",
        "&skip-bad=1&test=*",
        "&crop=none",
        "&test=[",
        "&crops=0",
    ] {
        assert!(matches!(open(bad), Err(DataError::Setting { .. })), "{bad}");
    }
    Ok(())
}

/// Values of more than 8 bits are kept where that is asked for, as whole numbers that are dequantised, and said to be
/// scaled where it is not; those of 8 bits are scaled up. Transparency, grey and a store on disk go with it.
#[test]
fn sixteen_bits_are_kept_when_asked() -> Test {
    let dir = tempfile::tempdir()?;
    let value = |x: u32, y: u32, i: u32| u16::try_from(x + 16 * y + 4096 * i).unwrap_or(0);
    for i in 0..10 {
        let deep = image::ImageBuffer::<image::Luma<u16>, _>::from_fn(16, 16, |x, y| image::Luma([value(x, y, i)]));
        save(dir.path(), &format!("{i}.png"), deep)?;
    }
    let scaled = ImageFolder { grey: true, ..ImageFolder::new(dir.path()) }.open(0)?;
    assert_eq!((scaled.train.levels(), scaled.train.are_whole()), (Some(256), false));
    assert!(
        scaled.found.warnings[0]
            .ends_with("10 pictures have more than 8 bits a value and are scaled to 8, 256 levels of 65,536: depth=16 keeps them")
    );

    let store = tempfile::tempdir()?;
    let text = format!("images:{}?grey=1&depth=16&cache={}", dir.path().display(), store.path().display());
    let source: DataSource = text.parse()?;
    assert_eq!(source.to_string(), text);
    for round in 0..2 {
        let split = source.open(0)?;
        assert_eq!((split.train.levels(), split.train.are_whole(), split.found.warnings.len()), (None, true, 0));
        assert!(Items::unseen(&split).are_whole());
        let Values::Real(values) = split.train.batch(&[Draw { epoch: 0, index: 3 }])?.values else { panic!("real numbers") };
        let expected: Vec<f64> = (0..16).flat_map(|y| (0..16).map(move |x| f64::from(value(x, y, 3)))).collect();
        assert_eq!(values, expected, "round {round}");
    }
    // Half transparent black over white, and 8 bits among 16.
    save(dir.path(), "a.png", image::ImageBuffer::<Rgba<u16>, _>::from_pixel(16, 16, Rgba([0, 0, 0, 32_768])))?;
    save(dir.path(), "b.png", coordinates(16, 16, 9))?;
    let split = ImageFolder { depth: Depth::Sixteen, test: Some("[0-9].png".into()), ..ImageFolder::new(dir.path()) }.open(0)?;
    assert!(split.found.warnings[0].ends_with("1 of 12 pictures has 8 bits a value, scaled to 16: every 257th level"), "{:?}", split.found);
    let Values::Real(values) = split.train.batch(&all(&*split.train, 0))?.values else { panic!("real numbers") };
    assert!(values[..768].iter().all(|x| (x - 32_767.0).abs() < 1e-9), "{}", values[0]);
    assert_eq!(values[768 + 512..768 + 515], [9.0 * 257.0; 3]);

    // A model sees x + u, and gives whole numbers back.
    let preprocessing = flow_api::spec::Preprocessing::default();
    let events = flow_train::Events::new(&*split.train, &preprocessing, 1)?;
    let batch = split.train.batch(&all(&*split.train, 0))?;
    let seen = events.of::<f64>(&batch)?;
    let noise: Vec<f64> = seen.values.iter().zip(&values).map(|(seen, x)| seen - x).collect();
    assert!(noise.iter().all(|u| (0.0..1.0).contains(u)) && (noise.iter().sum::<f64>() / noise.len() as f64 - 0.5).abs() < 0.05);
    assert_eq!(events.values(&seen.values), values);
    Ok(())
}
