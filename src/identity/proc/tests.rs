use super::*;

const LINE: &str = "4711 (a) b (c) S 17 4711 1 0 -1 4194624 1 2 3 4 5 6 7 8 20 0 1 0 987654 1 2 3 26 27 28 29 30 31 32 \
    33 34 35 36 37 38 39 40 41 42 43 44 45 46 47 48 49 50 51 2304\n";

#[test]
fn parentheses_in_a_command_name_shift_no_field() {
    let stat = parse_stat(LINE).unwrap();
    assert_eq!((stat.parent, stat.start_ticks, stat.exit_code), (17, 987_654, 2304));
    assert!(!stat.execed, "4194624 is 0x400140 and has 0x40 in it");
}

#[test]
fn a_line_cut_anywhere_is_no_panic_and_no_guess() {
    for end in 0..LINE.len() {
        let cut = parse_stat(&LINE[..end]);
        assert!(cut.is_none() || cut.unwrap().parent <= 17);
    }
}

#[test]
fn another_place_of_the_environment_is_another_image() {
    let moved = LINE.replace(" 50 51 2304", " 60 61 2304");
    assert_ne!(parse_stat(LINE).unwrap().image, parse_stat(&moved).unwrap().image);
}

#[test]
fn a_name_that_only_begins_like_the_asked_one_is_not_taken() {
    let status = "Name:\tx\nTgidX:\t1\nTgid:\t42\nPid:\t43\n";
    assert_eq!(status_number(status, "Tgid"), Some(42));
    assert_eq!(status_number(status, "Ngid"), None);
    assert_eq!(status_number(status, "Name"), None);
}

#[test]
fn our_own_files_are_read() {
    let me = std::process::id();
    assert_eq!(status_number(&status(me).unwrap(), "Tgid"), Some(me));
    assert_eq!(stat(me).unwrap().parent, std::os::unix::process::parent_id());
    assert_eq!(exe(me).unwrap(), std::env::current_exe().unwrap().to_string_lossy());
    assert!(!comm(me).unwrap().ends_with('\n'));
}

#[test]
fn a_process_that_is_not_there_is_none() {
    assert_eq!(status(u32::MAX), None);
    assert_eq!(stat(u32::MAX), None);
    assert_eq!(environ(u32::MAX), None);
}

#[test]
fn only_a_status_with_our_own_id_alone_is_of_our_namespace() {
    assert!(is_ours());
    assert!(is_of_namespace("Name:\tx\nTgid:\t7\nNSpid:\t7\n", 7));
    assert!(is_of_namespace("Tgid:\t7\n", 7));
    // Seen from above, as in a namespace of our own without a /proc of its own.
    assert!(!is_of_namespace("Tgid:\t31\nNSpid:\t31\t1\n", 1));
    assert!(!is_of_namespace("Tgid:\t1\nNSpid:\t1\t1\n", 1));
    assert!(!is_of_namespace("Tgid:\t31\nNSpid:\t31\n", 7));
    assert!(!is_of_namespace("", 7));
}
