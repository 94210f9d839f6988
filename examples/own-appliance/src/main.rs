use std::process::ExitCode;

fn main() -> ExitCode {
    own_appliance::app().main()
}
