//! Checks that each block of code in docs/tutorial.md is part of a file of this crate.

const TUTORIAL: &str = include_str!("../../../docs/tutorial.md");

#[test]
fn each_code_block_of_tutorial_is_in_a_file() {
    let files = [
        include_str!("../Cargo.toml"),
        include_str!("../appliance.toml"),
        include_str!("../src/main.rs"),
        include_str!("../src/lib.rs"),
        include_str!("../src/gate.rs"),
        include_str!("../src/subscribers.rs"),
        include_str!("without_root.rs"),
    ];
    let blocks = TUTORIAL.split("```").skip(1).step_by(2);
    let code_blocks = blocks.filter_map(|block| {
        let (language, text) = block.split_once('\n')?;
        matches!(language, "rust" | "toml").then_some(text)
    });
    let mut count = 0;
    for text in code_blocks {
        count += 1;
        assert!(
            files.iter().any(|file| file.contains(text)),
            "no file of this crate contains:\n{text}"
        );
    }
    assert!(count >= 12, "found {count} code blocks in the tutorial, expected at least 12");
}
