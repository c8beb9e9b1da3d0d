//! Reads pairs of words as lines of JSON and answers with how far they are from each other.
use serde_json::{json, Value};
use std::io::{self, BufRead, Write};

fn rounded(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

fn answer(line: &str) -> Value {
    let asked: Value = match serde_json::from_str(line) {
        Ok(value) => value,
        Err(problem) => return json!({ "error": problem.to_string() }),
    };
    match (asked["a"].as_str(), asked["b"].as_str()) {
        (Some(a), Some(b)) => json!({
            "levenshtein": strsim::levenshtein(a, b),
            "damerau": strsim::damerau_levenshtein(a, b),
            "jaro_winkler": rounded(strsim::jaro_winkler(a, b)),
            "dice": rounded(strsim::sorensen_dice(a, b)),
        }),
        _ => json!({ "error": "two texts are needed: a and b" }),
    }
}

fn main() -> io::Result<()> {
    let mut out = io::stdout();
    for line in io::stdin().lock().lines() {
        writeln!(out, "{}", answer(&line?))?;
        out.flush()?;
    }
    Ok(())
}
