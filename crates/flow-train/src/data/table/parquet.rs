//! Parquet files as tables.
//!
//! A file is written out as separated values and read as those are, so that columns have the same names, roles and
//! messages. Only its values are taken; the index that pandas keeps becomes a first column without a name.

use std::fs::File;
use std::path::Path;

use parquet::file::reader::{FileReader, SerializedFileReader};
use parquet::record::Field;

use super::{DataError, Result, Separator, TEXT_SHARE, Table, TableOptions, from_text, read_limit};

/// What pandas calls an index without a name.
const INDEX: &str = "__index_level_";

/// Reads a Parquet file of flat columns: numbers, truth values, text, dates and times (as the file counts them: days,
/// or milli- or microseconds since 1970). `path` only names the source in errors, and lines count the header: row 0
/// is line 2.
///
/// # Errors
/// [`DataError::Header`] for a file that is none, is broken, or has nested columns; [`DataError::TooLarge`]; as
/// [`super::read`].
pub fn read(path: &Path, file: File, options: &TableOptions) -> Result<Table> {
    // The reader asserts what the metadata of a broken file say, where it should return an error.
    let whole = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| as_text(path, file)));
    let text = whole.unwrap_or_else(|panic| {
        let said = panic.downcast_ref::<String>().cloned().or_else(|| panic.downcast_ref::<&str>().map(|said| (*said).to_owned()));
        let (expected, got) = ("a whole file".to_owned(), said.unwrap_or_default());
        Err(DataError::Header { path: path.to_owned(), field: "Parquet", expected, got })
    })?;
    let options = TableOptions { separator: Some(Separator::Byte(b',')), header: Some(true), ..options.clone() };
    from_text(path, &text, &options, Some("of a Parquet file"))
}

/// The table as separated values with a header.
fn as_text(path: &Path, file: File) -> Result<String> {
    let broken = |got: String| DataError::Header { path: path.to_owned(), field: "Parquet", expected: "a whole file".to_owned(), got };
    let io = |error: std::io::Error| DataError::Io { path: path.to_owned(), source: error };
    let reader = SerializedFileReader::new(file).map_err(|e| broken(e.to_string()))?;
    let schema = reader.metadata().file_metadata().schema_descr();
    if let Some(nested) = schema.columns().iter().find(|column| column.path().parts().len() > 1) {
        let expected = "flat columns".to_owned();
        return Err(DataError::Header {
            path: path.to_owned(),
            field: "Parquet",
            expected,
            got: format!("the nested column {}", nested.path()),
        });
    }
    // The index comes last in the file.
    let names: Vec<&str> = schema.columns().iter().map(|column| column.name()).collect();
    let index = names.iter().position(|name| name.starts_with(INDEX));
    let order: Vec<usize> = index.into_iter().chain((0..names.len()).filter(|&at| Some(at) != index)).collect();

    let limit = read_limit() / TEXT_SHARE;
    let mut out = csv::WriterBuilder::new().quote_style(csv::QuoteStyle::Always).from_writer(Vec::new());
    let name = |&at: &usize| if Some(at) == index { "" } else { names[at] };
    out.write_record(order.iter().map(name)).map_err(|e| broken(e.to_string()))?;
    for row in reader.get_row_iter(None).map_err(|e| broken(e.to_string()))? {
        let row = row.map_err(|e| broken(e.to_string()))?;
        let fields: Vec<String> = row.get_column_iter().map(|(_, field)| text(field)).collect();
        out.write_record(order.iter().map(|&at| fields.get(at).map_or("", String::as_str))).map_err(|e| broken(e.to_string()))?;
        let size = out.get_ref().len() as u64;
        if size > limit {
            return Err(DataError::TooLarge { path: path.to_owned(), sizes: vec![size], limit });
        }
    }
    let bytes = out.into_inner().map_err(|e| io(e.into_error()))?;
    String::from_utf8(bytes).map_err(|e| broken(e.to_string()))
}

/// A value as text that reads back as it; nothing where there is none.
fn text(field: &Field) -> String {
    match field {
        Field::Null => String::new(),
        Field::Bool(value) => u8::from(*value).to_string(),
        Field::Byte(value) => value.to_string(),
        Field::Short(value) => value.to_string(),
        Field::Int(value) | Field::Date(value) => value.to_string(),
        Field::Long(value) | Field::TimestampMillis(value) | Field::TimestampMicros(value) => value.to_string(),
        Field::UByte(value) => value.to_string(),
        Field::UShort(value) => value.to_string(),
        Field::UInt(value) => value.to_string(),
        Field::ULong(value) => value.to_string(),
        Field::Float16(value) => value.to_f64().to_string(),
        Field::Float(value) => value.to_string(),
        Field::Double(value) => value.to_string(),
        Field::Str(value) => value.clone(),
        other => other.to_string(),
    }
}
