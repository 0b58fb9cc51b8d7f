//! What is easily forgotten: a test file that no runner lists, a sentence of the format that no test shows.

use std::path::Path;

#[test]
fn every_test_file_is_listed_by_its_runner() {
    let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/store");
    let runner = std::fs::read_to_string(here.join("main.rs")).unwrap();
    for entry in std::fs::read_dir(here).unwrap() {
        let name = entry.unwrap().file_name().into_string().unwrap();
        if let Some(module) = name.strip_suffix(".rs").filter(|module| *module != "main") {
            assert!(runner.contains(&format!("mod {module};")), "tests/store/{name} is not listed in main.rs");
        }
    }
}

#[test]
fn every_sentence_of_the_format_has_a_test_that_names_it() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let format = std::fs::read_to_string(root.join("src/engine/FORMAT.md")).unwrap();
    let mut tests = String::new();
    for entry in std::fs::read_dir(root.join("tests/store")).unwrap() {
        tests.push_str(&std::fs::read_to_string(entry.unwrap().path()).unwrap());
    }
    let sentences: Vec<&str> = format.split("- **F").skip(1).filter_map(|rest| rest.split("**").next()).collect();
    assert!(sentences.len() > 20, "the format page has lost its sentences");
    for number in sentences {
        let named = [format!("fn f{number}_"), format!("// F{number}\n"), format!("// F{number} ")];
        assert!(named.iter().any(|name| tests.contains(name)), "no test names F{number}");
    }
}
