use crate::config::LogFormat;
use crate::telemetry::log::*;
use proptest::prelude::*;

proptest! {
    #[test]
    fn any_text_stays_within_one_valid_line(key in "[a-z]{1,8}", value in ".*", message in ".*") {
        let mut line = Line::new(LogFormat::Json, tracing::Level::INFO, "test");
        line.message(&message);
        line.text(&key, &value);
        let bytes = line.finish();
        prop_assert_eq!(bytes.iter().filter(|byte| **byte == b'\n').count(), 1);
        let object: serde_json::Value = serde_json::from_slice(&bytes).unwrap();
        prop_assert_eq!(object["message"].as_str().unwrap(), message);
    }
}
