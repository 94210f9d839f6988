//! Prints the answers to `ctl rules` and `ctl inspect` while they arrive, without storing them:
//! with a million rules, an answer has a hundred megabytes.

use std::fmt;
use std::io::{self, Write};
use std::os::unix::net::UnixStream;

use anyhow::Result;
use serde::Deserialize;
use serde::de::{DeserializeSeed, Deserializer, IgnoredAny, MapAccess, SeqAccess, Visitor};
use serde_json::{Map, Value};

use super::receive::{Limited, MAX_LISTING, Tee, describe};
use super::text::{cell, column_names, word};
use super::{Command, escape};
use crate::output::write_failed;

/// Prints the answer. Returns its values without the list `filters` or `tables`; if the command
/// failed, they contain `error`.
pub(super) fn print(
    stream: &UnixStream,
    command: Command,
    json: bool,
    stdout: &mut dyn Write,
) -> Result<Value> {
    let source = io::BufReader::with_capacity(1 << 16, Limited::new(stream, MAX_LISTING));
    if json { print_json(source, stdout) } else { print_text(source, command, stdout) }
}

fn print_json(source: impl io::Read, stdout: &mut dyn Write) -> Result<Value> {
    let mut write_error = None;
    // Do not print an answer with an error. Such an answer is short, so an answer of 64 KiB has a
    // list and can be printed.
    let mut start = String::new();
    let mut is_list = false;
    let mut write = |text: &str| {
        start.push_str(text);
        is_list |= start.len() >= 1 << 16;
        if !is_list {
            return Ok(());
        }
        let written = stdout.write_all(escape::json(&std::mem::take(&mut start)).as_bytes());
        written.map_err(|error| {
            let kind = error.kind();
            write_error = Some(error);
            kind.into()
        })
    };
    let mut tee = Tee::new(source, &mut write);
    let mut deserializer = serde_json::Deserializer::from_reader(&mut tee);
    let parsed = Answer { printer: None }.deserialize(&mut deserializer);
    drop(deserializer);
    let written = tee.flush();
    drop(tee);
    if let Some(error) = write_error {
        return Err(write_failed(error));
    }
    let answer = parsed.map_err(describe)?;
    written?;
    if answer.get("error").is_none() {
        writeln!(stdout, "{}", escape::json(&start)).map_err(write_failed)?;
    }
    Ok(Value::Object(answer))
}

fn print_text(source: impl io::Read, command: Command, stdout: &mut dyn Write) -> Result<Value> {
    let mut printer = Printer { command, stdout, error: None };
    let mut deserializer = serde_json::Deserializer::from_reader(source);
    let parsed = Answer { printer: Some(&mut printer) }.deserialize(&mut deserializer);
    match printer.error {
        Some(error) => Err(write_failed(error)),
        None => Ok(Value::Object(parsed.map_err(describe)?)),
    }
}

struct Printer<'o> {
    command: Command,
    stdout: &'o mut dyn Write,
    error: Option<io::Error>,
}

impl Printer<'_> {
    /// The key of the list in the answer.
    fn list(&self) -> &'static str {
        if self.command == Command::Rules { "filters" } else { "tables" }
    }

    fn print<E: serde::de::Error>(&mut self, text: &str) -> Result<(), E> {
        self.stdout.write_all(text.as_bytes()).map_err(|error| {
            self.error = Some(error);
            E::custom("cannot write")
        })
    }
}

/// A deserializer of an answer. Without a printer, it skips `filters` and `tables`.
struct Answer<'p, 'o> {
    printer: Option<&'p mut Printer<'o>>,
}

impl<'de> DeserializeSeed<'de> for Answer<'_, '_> {
    type Value = Map<String, Value>;

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<Self::Value, D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for Answer<'_, '_> {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a JSON object")
    }

    fn visit_map<M: MapAccess<'de>>(mut self, mut map: M) -> Result<Self::Value, M::Error> {
        let mut answer = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match (&*key, &mut self.printer) {
                ("filters" | "tables", Some(printer)) if key == printer.list() => {
                    map.next_value_seed(Tables { printer, answer: &answer })?;
                }
                ("filters" | "tables", _) => _ = map.next_value::<IgnoredAny>()?,
                _ => _ = answer.insert(key, map.next_value()?),
            }
        }
        Ok(answer)
    }
}

struct Tables<'p, 'o> {
    printer: &'p mut Printer<'o>,
    /// The values that precede the tables in the answer.
    answer: &'p Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for Tables<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

impl<'de> Visitor<'de> for Tables<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut tables: S) -> Result<(), S::Error> {
        let (answered, workers) = (self.answer.get("answered"), self.answer.get("workers"));
        if answered != workers {
            let number = |value: Option<&Value>| value.map_or_else(String::new, word);
            self.printer.print(&format!(
                "{} of {} workers answered; the counters of the others are missing\n",
                number(answered),
                number(workers)
            ))?;
        }
        let mut is_empty = true;
        while tables.next_element_seed(OneTable { printer: &mut *self.printer })?.is_some() {
            is_empty = false;
        }
        if is_empty {
            let rows = if self.printer.command == Command::Rules { "rules" } else { "tables" };
            self.printer.print(&format!("no stage has {rows}\n"))?;
        }
        Ok(())
    }
}

struct OneTable<'p, 'o> {
    printer: &'p mut Printer<'o>,
}

impl<'de> DeserializeSeed<'de> for OneTable<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_map(self)
    }
}

impl<'de> Visitor<'de> for OneTable<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a table")
    }

    fn visit_map<M: MapAccess<'de>>(self, mut map: M) -> Result<(), M::Error> {
        let mut table = Map::new();
        while let Some(key) = map.next_key::<String>()? {
            match &*key {
                "rules" | "rows" => {
                    self.printer.print(&title(self.printer.command, &table))?;
                    map.next_value_seed(Rows { printer: &mut *self.printer, table: &table })?;
                }
                _ => _ = table.insert(key, map.next_value()?),
            }
        }
        if self.printer.command == Command::Rules {
            let default = table.get("default").map_or_else(String::new, word);
            self.printer.print(&format!("{:>6}  {default:>12}  (default)\n", ""))?;
            // Counters of packet exceptions: kinds of packets that can mislead a filter.
            let exceptions = table.get("exceptions").and_then(Value::as_array);
            for exception in exceptions.into_iter().flatten() {
                for verdict in ["accepted", "dropped"] {
                    let (packets, name) = (&exception[verdict], word(&exception["exception"]));
                    if *packets != 0 {
                        let packets = word(packets);
                        self.printer
                            .print(&format!("{:>6}  {packets:>12}  ({name}, {verdict})\n", ""))?;
                    }
                }
            }
        }
        Ok(())
    }
}

/// Returns the line before the rows of a table. `table` has the values that precede the rows in the
/// answer.
fn title(command: Command, table: &Map<String, Value>) -> String {
    let value = |key: &str| table.get(key).cloned().unwrap_or_default();
    let stage = word(&value("stage"));
    if command == Command::Rules {
        let placement = if value("place") == "kernel" { ", in the kernel" } else { "" };
        return format!("{stage} of {}{placement}\n", word(&value("path")));
    }
    let path = value("path");
    let path = path.as_str().map_or(String::new(), |path| format!(" of {}", escape::line(path)));
    format!("{stage}{path}: {}\n", word(&value("name")))
}

struct Rows<'p, 'o> {
    printer: &'p mut Printer<'o>,
    table: &'p Map<String, Value>,
}

impl<'de> DeserializeSeed<'de> for Rows<'_, '_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_seq(self)
    }
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct Rule {
    rule: Value,
    packets: Value,
    text: Value,
}

/// Number of rows whose columns are aligned together. The columns of later rows of the table are at
/// least as wide.
const ALIGNED_ROWS: usize = 1000;

impl<'de> Visitor<'de> for Rows<'_, '_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a list of rows")
    }

    fn visit_seq<S: SeqAccess<'de>>(self, mut rows: S) -> Result<(), S::Error> {
        let Self { printer, table } = self;
        if printer.command == Command::Rules {
            while let Some(Rule { rule, packets, text }) = rows.next_element()? {
                let [rule, packets, text] = [rule, packets, text].map(|value| word(&value));
                printer.print(&format!("{rule:>6}  {packets:>12}  {text}\n"))?;
            }
            return Ok(());
        }
        let mut block = vec![table.get("columns").map_or_else(Vec::new, column_names)];
        let mut widths = Vec::new();
        while let Some(row) = rows.next_element::<Vec<Value>>()? {
            block.push(row.iter().map(cell).collect());
            if block.len() > ALIGNED_ROWS {
                printer.print(&crate::text::aligned(&std::mem::take(&mut block), &mut widths))?;
            }
        }
        printer.print(&crate::text::aligned(&block, &mut widths))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn text(command: Command, answer: &str) -> Result<String, String> {
        let mut output = Vec::new();
        match print_text(answer.as_bytes(), command, &mut output) {
            Ok(_) => Ok(String::from_utf8(output).unwrap()),
            Err(error) => Err(format!("{error:#}")),
        }
    }

    #[test]
    fn rules_are_printed_with_escaped_control_characters() {
        let answer = json!({
            "schema": 1, "type": "rules", "workers": 2, "answered": 1,
            "filters": [{
                "path": "lan->wan", "stage": "edge", "place": "kernel",
                "rules": [{ "rule": 7, "packets": 3, "text": "drop\u{1b}[2J\n" }], "default": 9,
            }],
        });
        let expected = "1 of 2 workers answered; the counters of the others are missing\n\
                        edge of lan->wan, in the kernel\n\
                        \x20    7             3  drop\\u{1b}[2J\\n\n\
                        \x20                  9  (default)\n";
        assert_eq!(text(Command::Rules, &answer.to_string()).unwrap(), expected);
    }

    #[test]
    fn tables_of_any_length_are_aligned() {
        let rows: Vec<Value> = (0..2500).map(|row| json!([row, "x"])).collect();
        let answer = json!({
            "workers": 1, "answered": 1,
            "tables": [{
                "path": null, "stage": "s", "place": "user", "name": "t",
                "columns": [{ "name": "number" }, { "name": "text" }], "rows": rows,
            }],
        });
        let text = text(Command::Inspect, &answer.to_string()).unwrap();
        assert_eq!(text.lines().count(), 2502);
        assert!(text.starts_with("s: t\nnumber  text\n0       x\n"), "{text}");
        assert!(text.ends_with("\n2499    x\n"), "{text}");
    }

    #[test]
    fn json_answer_is_printed_with_same_value_unless_it_is_an_error() {
        let rules: Vec<Value> =
            (0..3000).map(|rule| json!({ "rule": rule, "text": "ü\u{7f}" })).collect();
        let answer = json!({ "workers": 1, "answered": 1, "filters": [{ "rules": rules }] });
        let mut output = Vec::new();
        print_json(answer.to_string().as_bytes(), &mut output).unwrap();
        let output = String::from_utf8(output).unwrap();
        assert!(output.contains("ü\\u007f") && output.ends_with("}\n"));
        assert_eq!(serde_json::from_str::<Value>(&output).unwrap(), answer);
        let mut output = Vec::new();
        let error = print_json(&br#"{"error":"no"}"#[..], &mut output).unwrap();
        assert_eq!((error["error"].as_str(), output.len()), (Some("no"), 0));
    }

    #[test]
    fn answer_that_is_not_json_or_ends_early_is_an_error() {
        for (answer, error) in [
            ("", "ends early"),
            ("{\"filters\":[{\"rules\":[", "ends early"),
            ("x", "not JSON"),
            ("[]", "not JSON"),
        ] {
            let text = text(Command::Rules, answer).unwrap_err();
            assert!(text.contains(error), "{text}");
            let text = print_json(answer.as_bytes(), &mut Vec::new()).unwrap_err().to_string();
            assert!(text.contains(error), "{text}");
        }
    }
}
