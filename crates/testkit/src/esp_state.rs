//! State files of ESP, as docs/esp.md describes them.

/// Returns epoch and SAs of the newest state in a state file, ignoring checksums.
pub fn newest(text: &str) -> String {
    let copies = text.split("\ngeneration = ").skip(1).map(|copy| {
        let (generation, state) = copy.split_once('\n').expect("a line with the generation");
        let generation: u64 = generation.parse().expect("a number as generation");
        (generation, state.split_once("\n# end ").expect("a last line").0)
    });
    copies.max().expect("a copy of the state").1.to_owned()
}

/// Returns a state file of version 1 (without checksum); `state` has epoch and SAs.
pub fn version_1(state: &str) -> String {
    format!("version = 1\n{}\n# end\n", state.trim_end())
}
