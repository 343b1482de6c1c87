//! Lines that are objects: `level`, or `metadata.level` as Supavisor has it, and `time` or `timestamp`. Values are
//! read where they are met; what else there is in the object is passed over, not kept.

use super::super::line::Level;
use super::{Claim, Time};
use serde::de::{Deserialize, Deserializer, Error, IgnoredAny, MapAccess, SeqAccess, Visitor};

/// Reads the object; something that is none says nothing.
pub(super) fn claim(text: &str) -> Claim {
    let Ok(Object { level, time, inner }) = serde_json::from_str::<Object>(text) else {
        return Claim::default();
    };
    Claim { level: level.or(inner), time, follows: false }
}

#[derive(Default)]
struct Object {
    level: Option<Level>,
    time: Option<Time>,
    inner: Option<Level>,
}

/// A value, whatever it is: read as the one or as the other.
#[derive(Default)]
struct Value {
    level: Option<Level>,
    time: Option<Time>,
    object: Object,
}

enum Key {
    Level,
    Time,
    Metadata,
    Other,
}

struct AnyKey;
struct AnyValue;

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Object, D::Error> {
        deserializer.deserialize_map(AnyValue).map(|value| value.object)
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(AnyValue)
    }
}

impl<'de> Deserialize<'de> for Key {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Key, D::Error> {
        deserializer.deserialize_str(AnyKey)
    }
}

impl Visitor<'_> for AnyKey {
    type Value = Key;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a key")
    }

    fn visit_str<E: Error>(self, key: &str) -> Result<Key, E> {
        Ok(match key {
            "level" | "severity" | "lvl" => Key::Level,
            "time" | "timestamp" | "ts" | "@timestamp" => Key::Time,
            "metadata" => Key::Metadata,
            _ => Key::Other,
        })
    }
}

impl<'de> Visitor<'de> for AnyValue {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("anything")
    }

    fn visit_str<E: Error>(self, text: &str) -> Result<Value, E> {
        let time = super::rfc3339(text).map(Time::At);
        Ok(Value { level: super::named(text), time, ..Value::default() })
    }

    fn visit_i64<E: Error>(self, number: i64) -> Result<Value, E> {
        // The levels that some libraries of Node number from 10 (trace) to 60 (fatal).
        let level = match number {
            10..30 => Some(Level::Debug),
            30..40 => Some(Level::Info),
            40..50 => Some(Level::Warn),
            50..=60 => Some(Level::Error),
            _ => None,
        };
        Ok(Value { level, time: Some(Time::Number(number)), ..Value::default() })
    }

    fn visit_u64<E: Error>(self, number: u64) -> Result<Value, E> {
        i64::try_from(number).map_or_else(|_| Ok(Value::default()), |number| self.visit_i64(number))
    }

    fn visit_f64<E: Error>(self, number: f64) -> Result<Value, E> {
        // Seconds with a fraction; others have no reason for one.
        let at = jiff::SignedDuration::try_from_secs_f64(number)
            .ok()
            .and_then(|since| jiff::Timestamp::from_duration(since).ok());
        Ok(Value { time: at.map(Time::At), ..Value::default() })
    }

    fn visit_bool<E: Error>(self, _: bool) -> Result<Value, E> {
        Ok(Value::default())
    }

    fn visit_unit<E: Error>(self) -> Result<Value, E> {
        Ok(Value::default())
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<Value, A::Error> {
        while list.next_element::<IgnoredAny>()?.is_some() {}
        Ok(Value::default())
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut object = Object::default();
        while let Some(key) = map.next_key::<Key>()? {
            match key {
                Key::Level => object.level = map.next_value::<Value>()?.level.or(object.level),
                Key::Time => object.time = map.next_value::<Value>()?.time.or(object.time),
                Key::Metadata => object.inner = map.next_value::<Value>()?.object.level.or(object.inner),
                Key::Other => drop(map.next_value::<IgnoredAny>()?),
            }
        }
        Ok(Value { object, ..Value::default() })
    }
}
