//! JSON objects without duplicate keys, at any depth: of two values for one key, neither could be
//! trusted.

use serde::{
    Deserialize, Deserializer,
    de::{Error, MapAccess, SeqAccess, Visitor},
};
use serde_json::{Map, Number, Value};
use std::fmt;

/// The object in `text`, which is one line; the error says which column is wrong.
pub(super) fn object(text: &str) -> Result<Map<String, Value>, String> {
    let strict: StrictObject = serde_json::from_str(text).map_err(|e| {
        // The line is ours to tell: serde_json saw only this one.
        e.to_string().replace(" at line 1 column ", " at column ")
    })?;
    Ok(strict.0)
}

struct StrictObject(Map<String, Value>);

struct Strict(Value);

impl<'de> Deserialize<'de> for StrictObject {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_map(Objects).map(Self)
    }
}

impl<'de> Deserialize<'de> for Strict {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        d.deserialize_any(Values).map(Self)
    }
}

struct Objects;

impl<'de> Visitor<'de> for Objects {
    type Value = Map<String, Value>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("an object")
    }
    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut out = Map::new();
        while let Some((key, Strict(value))) = map.next_entry::<String, _>()? {
            if out.contains_key(&key) {
                return Err(A::Error::custom(format!("the key {key:?} stands twice")));
            }
            out.insert(key, value);
        }
        Ok(out)
    }
}

struct Values;

impl<'de> Visitor<'de> for Values {
    type Value = Value;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value")
    }
    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }
    fn visit_bool<E: Error>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }
    fn visit_u64<E: Error>(self, value: u64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_i64<E: Error>(self, value: i64) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_f64<E: Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value).ok_or_else(|| E::custom("a number without end"))?;
        Ok(Value::Number(number))
    }
    fn visit_str<E: Error>(self, value: &str) -> Result<Value, E> {
        Ok(value.into())
    }
    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        let mut out = Vec::new();
        while let Some(Strict(value)) = list.next_element()? {
            out.push(value);
        }
        Ok(Value::Array(out))
    }
    fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<Value, A::Error> {
        Objects.visit_map(map).map(Value::Object)
    }
}

#[cfg(test)]
mod tests {
    use super::object;

    #[test]
    fn a_key_stands_once_in_its_object() {
        let same = r#"{"a":[{"b":null},{"b":1.5}],"c":{"a":-1,"b":true,"c":"x"}}"#;
        let value: serde_json::Value = serde_json::from_str(same).unwrap();
        assert_eq!(Some(&object(same).unwrap()), value.as_object());
        for (bad, says) in [
            (r#"{"a":1,"a":1}"#, "\"a\" stands twice at column 13"),
            (r#"{"a":[{"b":1,"b":2}]}"#, "\"b\" stands twice"),
            (r#"{"a":1,"\u0061":2}"#, "\"a\" stands twice"),
            ("[]", "expected an object"),
            ("{", "EOF"),
            ("{} {}", "trailing"),
        ] {
            let why = object(bad).unwrap_err();
            assert!(why.contains(says), "{bad}: {why}");
        }
    }
}
