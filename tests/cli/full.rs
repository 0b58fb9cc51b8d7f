//! A disk without a block to spare.

use std::io::Write;

use crate::command::Bench;
use crate::image::Image;

#[test]
fn a_store_on_a_full_disk_is_read_and_goes_on_once_there_is_room() {
    // Only root can try this.
    let Some(disk) = Image::in_memory(4) else { return };
    let bench = Bench::below(&disk.path());
    bench.run(&["init", "@", "s"]).done();
    bench.write("k", "one", "w").done();
    let fill = bench.beside("fill");
    let mut file = std::fs::File::create(&fill).unwrap();
    while file.write_all(&[1; 4096]).is_ok() {}
    drop(file);
    assert_eq!(bench.value("k"), "one");
    assert_eq!(bench.run(&["list", "@", "s"]).done().text(), "k\n");
    bench.run(&["verify", "@"]);
    std::fs::remove_file(&fill).unwrap();
    bench.write("k", "two", "w").done();
    assert_eq!(bench.value("k"), "two");
    bench.run(&["verify", "@"]).done();
}
