use proptest::prelude::*;
use serde_json::Value;

use super::super::check::testing::object_text;
use super::*;

fn pretty(text: &str) -> String {
    Json::read(text).unwrap().pretty()
}

#[test]
fn a_number_is_printed_as_it_was_written() {
    let text = "[1.0,1e3,1E+03,-0,-0.0,12345678901234567890123,0.10,1e999]";
    assert_eq!(pretty(text).replace([' ', '\n'], ""), text);
}

#[test]
fn empty_things_stay_on_one_line() {
    assert_eq!(pretty("{\"b\":[ ],\"a\":{ }}"), "{\n  \"a\": {},\n  \"b\": []\n}");
    assert_eq!(pretty(" {} "), "{}");
}

#[test]
fn numbers_are_taken_for_what_they_are() {
    let number = |text: &str| Json::Number(text.to_owned());
    assert_eq!(number("-0").as_i64(), Some(0));
    assert_eq!(number("1e3").as_i64(), None);
    assert_eq!(number("9223372036854775808").as_i64(), None);
    assert_eq!(number("1e3").as_f64(), Some(1000.0));
    assert_eq!(number("1e999").as_f64(), None);
    assert_eq!(Json::from("1").as_f64(), None);
    assert_eq!(Json::fraction(5.0), Some(number("5.0")));
    assert_eq!(Json::fraction(f64::NAN), None);
}

#[test]
fn a_text_nobody_checked_is_no_panic() {
    for text in ["", "{", "{\"", "{\"a\"", "{\"a\":", "{\"a\":1", "[1", "\"\\", "\"\\\"", "{1:2}", "[1 2]", "\"é"] {
        assert_eq!(Json::read(text), None, "{text}");
    }
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn what_is_printed_says_what_was_read(text in object_text()) {
        let printed = pretty(&text);
        let value: Value = serde_json::from_str(&text).unwrap();
        prop_assert_eq!(&serde_json::from_str::<Value>(&printed).unwrap(), &value);
        prop_assert_eq!(pretty(&printed), printed.clone());
        // Only an exponent is spelled otherwise there.
        if !text.contains(['e', 'E']) {
            prop_assert_eq!(printed, serde_json::to_string_pretty(&value).unwrap());
        }
    }
}
