use proptest::prelude::*;
use serde_json::Value;

use super::testing::object_text;
use super::*;

fn push(text: &[u8]) -> Result<Check, String> {
    let mut check = Check::default();
    check.push(text).map_err(|refused| refused.0)?;
    Ok(check)
}

fn whole(text: impl AsRef<[u8]>) -> Result<(), String> {
    push(text.as_ref())?.finish().map_err(|refused| refused.0)
}

fn words(text: impl AsRef<[u8]>) -> String {
    whole(text).unwrap_err().strip_prefix("summary must be a JSON object: ").unwrap().to_owned()
}

/// What the parser says, for texts without the name it keeps for itself.
fn parses(text: &[u8]) -> bool {
    serde_json::from_slice::<serde_json::Map<String, Value>>(text).is_ok()
}

/// How many bytes are taken before one is refused; all when none is.
fn taken(text: &[u8]) -> usize {
    (0..text.len()).find(|end| push(&text[..=*end]).is_err()).unwrap_or(text.len())
}

#[test]
fn what_is_wrong_and_where_is_said() {
    assert_eq!(words(""), "nothing was written");
    assert_eq!(words(" \n"), "there is only white space");
    assert_eq!(words("\n [1]"), "found an array at line 2 column 2");
    assert_eq!(words("\"x\""), "found a string at line 1 column 1");
    assert_eq!(words("-1"), "found a number at line 1 column 1");
    assert_eq!(words("null"), "found 'n' at line 1 column 1");
    assert_eq!(words(b"\xef\xbb\xbf{}"), "found byte 0xef, with which a byte order mark begins, at line 1 column 1");
    assert_eq!(words("{}\n{"), "found '{' at line 2 column 1, where nothing more was expected");
    assert_eq!(words("{\"a\" 1}"), "found '1' at line 1 column 6, where ':' was expected");
    assert_eq!(words("{\"a\":1,}"), "found '}' at line 1 column 8, where a name in double quotes was expected");
    assert_eq!(words("{'a':1}"), "found ''' at line 1 column 2, where a name in double quotes or '}' was expected");
    assert_eq!(
        words("{\"a\":[1}"),
        "found '}' at line 1 column 8, where ',' or the end of the object or array was expected"
    );
    assert_eq!(
        words("{\"a\":nul}"),
        "found '}' at line 1 column 9, where the rest of true, false or null was expected"
    );
    assert_eq!(words("{\"a\":-x}"), "found 'x' at line 1 column 7, where a digit was expected");
    assert_eq!(words("{\"a\":\"\\x\"}"), "found 'x' at line 1 column 8, where one of \"\\/bfnrtu was expected");
    assert_eq!(words("{\"a\":\"x\ny\"}"), "a string has byte 0x0a in it, which must be escaped, at line 1 column 8");
    assert_eq!(words(b"{\"a\":\"\xff\"}"), "it is not UTF-8, at line 1 column 7");
    assert_eq!(words("{\"a\":\"\\ud800x\"}"), "half of a surrogate pair stands alone, at line 1 column 13");
    assert_eq!(
        words("{\n\"status\": \"do"),
        "the text ends at line 2 column 14, where the closing quote of a string is missing"
    );
    assert_eq!(words("{\"a\":1"), "the text ends at line 1 column 7, where a digit is missing");
}

#[test]
fn a_refusal_stays() {
    let mut check = Check::default();
    let refused = check.push(b"{]").unwrap_err();
    assert_eq!(check.push(b""), Err(refused.clone()));
    assert_eq!(check.push(b"}"), Err(refused.clone()));
    assert_eq!(check.finish(), Err(refused));
}

#[test]
fn the_first_impossible_byte_is_the_one_refused() {
    let cases: [(&[u8], usize); 14] = [
        (b"{\"a\":01}", 6),
        (b"{\"a\":1.}", 7),
        (b"{\"a\":1e}", 7),
        (b"{\"a\":-}", 6),
        (b"{\"a\":+1}", 5),
        (b"{\"a\":.5}", 5),
        (b"{\"a\":\"\\ud8zz\"}", 10),
        (b"{\"a\":\"\\ude00\"}", 9),
        (b"{\"a\":\"\\ud83d\\u0041\"}", 14),
        (b"{\"a\":\"\\ud83d\\ud83d\"}", 15),
        (b"{\"a\":\"\xed\xa0\x80\"}", 7),
        (b"{\"a\":\"\xc0\x80\"}", 6),
        (b"{\"a\":\"\xf4\x90\x80\x80\"}", 7),
        (b"{\"a\":tru\x00}", 8),
    ];
    for (text, at) in cases {
        assert_eq!(taken(text), at, "{}", text.escape_ascii());
        assert!(!parses(text), "{}", text.escape_ascii());
    }
}

#[test]
fn what_the_parser_takes_is_taken() {
    let cases = [
        r#"{}"#,
        " \t\r\n{ \"a\" : [ ] , \"b\" : { } }\r\n",
        r#"{"a":[0,-0,1.0,1e3,1E+3,1e-300,12345678901234567890123,1e999,0.0e0]}"#,
        r#"{"a":[true,false,null,"",[[]],{"a":{"a":[]}}]}"#,
        r#"{"\u0000\ud83d\ude00\"\\\/\b\f\n\r\t\uD7FF\uE000\uFFFF":"é€😀"}"#,
        r#"{"a":1,"a":2}"#,
    ];
    for text in cases {
        assert_eq!(whole(text), Ok(()), "{text}");
        assert!(parses(text.as_bytes()), "{text}");
    }
}

#[test]
fn the_deepest_that_is_taken_is_the_deepest_that_parses() {
    let nested = |levels: usize| format!("{{\"a\":{}{}}}", "[".repeat(levels - 1), "]".repeat(levels - 1));
    assert_eq!(whole(nested(DEPTH_MAX)), Ok(()));
    assert!(parses(nested(DEPTH_MAX).as_bytes()));
    assert_eq!(words(nested(DEPTH_MAX + 1)), "it nests deeper than 127 levels, at line 1 column 132");
    assert!(!parses(nested(DEPTH_MAX + 1).as_bytes()));
}

#[test]
fn endless_nesting_is_refused_where_it_gets_too_deep() {
    assert_eq!(taken("[".repeat(64 << 20).as_bytes().get(..9).unwrap()), 0);
    assert!(words("[".repeat(64 << 20)).starts_with("found an array"));
    assert!(words("{\"a\":".repeat((64 << 20) / 5)).starts_with("it nests deeper"));
    assert!(words(format!("{{\"a\":{}", "[".repeat(64 << 20))).starts_with("it nests deeper"));
}

#[test]
fn the_parsers_own_name_is_refused_however_it_is_written() {
    let refused = "the name '$serde_json::private::Number' cannot be kept, at line 1 column ";
    assert!(words(r#"{"$serde_json::private::Number":"1"}"#).starts_with(refused));
    assert!(words(r#"{"a":[{"\u0024serde_json::private::\u004eumber":"1"}]}"#).starts_with(refused));
    assert_eq!(whole(r#"{"a":"$serde_json::private::Number"}"#), Ok(()));
    assert_eq!(whole(r#"{"$serde_json::private::Numbers":1,"$serde_json::private::Numbe":1}"#), Ok(()));
    assert_eq!(whole(r#"{"$serde_json::private::Number\n":1,"x$serde_json::private::Number":1}"#), Ok(()));
}

/// Bytes that are often nearly JSON.
fn near_json() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::sample::select(
            &b"{}[]:,\"\\ \n0123456789-+.eEtrufalsn/bdDcC89\xc3\xa9\xe2\x82\xac\xf0\x9f\x98\x80\xed\xa0\xef\xbb\xbf\x00"[..]
        )
        .prop_map(|byte| vec![byte]),
        prop::sample::select(&["{\"", "\":", "\",\"", "\\u", "\\ud83d", "\\ude00", "true", "null", "1.5e", "}]", "{}"][..])
            .prop_map(|text| text.as_bytes().to_vec()),
    ];
    prop::collection::vec(piece, 0..24).prop_map(|pieces| [b"{".to_vec(), pieces.concat()].concat())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 512, ..ProptestConfig::default() })]

    #[test]
    fn an_object_in_pieces_is_never_refused(text in object_text(), cuts in prop::collection::vec(any::<prop::sample::Index>(), 0..8)) {
        prop_assert!(parses(text.as_bytes()), "{text}");
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.index(text.len() + 1)).collect();
        cuts.sort_unstable();
        let mut check = Check::default();
        let mut from = 0;
        for to in cuts.into_iter().chain([text.len()]) {
            prop_assert_eq!(check.push(&text.as_bytes()[from..to]), Ok(()));
            from = to;
        }
        prop_assert_eq!(check.finish(), Ok(()));
        for end in 0..text.trim_end().len() {
            prop_assert!(whole(&text.as_bytes()[..end]).is_err(), "cut at {}", end);
        }
    }

    #[test]
    fn a_damaged_object_is_judged_as_the_parser_judges_it(
        text in object_text(), at in any::<prop::sample::Index>(), byte in any::<u8>(), how in 0..3u8
    ) {
        let mut text = text.into_bytes();
        let at = at.index(text.len());
        match how {
            0 => text[at] = byte,
            1 => text.insert(at, byte),
            _ => drop(text.remove(at)),
        }
        prop_assert_eq!(whole(&text).is_ok(), parses(&text), "{}", text.escape_ascii());
    }

    #[test]
    fn bytes_that_are_nearly_json_are_judged_as_the_parser_judges_them(text in near_json(), end in near_json()) {
        prop_assert_eq!(whole(&text).is_ok(), parses(&text), "{}", text.escape_ascii());
        if push(&text).is_err() {
            prop_assert!(!parses(&[text, end].concat()));
        }
    }

    #[test]
    fn pieces_of_one_byte_are_judged_as_the_whole(text in near_json()) {
        let mut check = Check::default();
        let by_byte = text.iter().try_for_each(|byte| check.push(&[*byte])).and_then(|()| check.finish());
        prop_assert_eq!(by_byte.map_err(|refused| refused.0), whole(&text));
    }

    #[test]
    fn any_bytes_are_judged(text in prop::collection::vec(any::<u8>(), 0..64)) {
        prop_assert_eq!(whole(&text).is_ok(), parses(&text));
    }
}
