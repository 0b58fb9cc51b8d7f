//! Random JSON for the tests of this room: numbers and strings in forms a writer of JSON would not choose, too.

use proptest::prelude::*;

/// Any object, as its own text.
pub(in super::super) fn object_text() -> impl Strategy<Value = String> {
    object_of(value_text())
}

fn value_text() -> impl Strategy<Value = String> {
    let leaf = prop_oneof![
        prop_oneof![Just("null"), Just("true"), Just("false")].prop_map(str::to_owned),
        "-?(0|[1-9][0-9]{0,30})(\\.[0-9]{1,9})?([eE][+-]?[0-9]{1,4})?",
        string_text(),
    ];
    leaf.prop_recursive(5, 48, 6, |inner| {
        prop_oneof![
            (prop::collection::vec(inner.clone(), 0..6), "[ \n\t\r]{0,2}")
                .prop_map(|(items, space)| format!("[{space}{}{space}]", items.join(&format!("{space},")))),
            object_of(inner),
        ]
    })
}

fn string_text() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "\\PC{0,6}".prop_map(|text| text.replace(['"', '\\'], "")),
        prop_oneof![Just("\\\""), Just("\\\\"), Just("\\/"), Just("\\n"), Just("\\u0000"), Just("\\uD83d\\uDe00")]
            .prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..4).prop_map(|pieces| format!("\"{}\"", pieces.concat()))
}

fn object_of(inner: impl Strategy<Value = String>) -> impl Strategy<Value = String> {
    prop::collection::vec((string_text(), inner), 0..6).prop_map(|members| {
        let members: Vec<_> = members.into_iter().map(|(name, value)| format!("{name}: {value}")).collect();
        format!("{{{}}}", members.join(", "))
    })
}
