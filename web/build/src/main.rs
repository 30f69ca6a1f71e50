//! `eplb-web-build FILE.wasm FOLDER`: the JavaScript and the types of a library that cargo has built.

use std::process::ExitCode;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [wasm, folder] = &arguments[..] else {
        eprintln!("usage: eplb-web-build FILE.wasm FOLDER");
        return ExitCode::from(2);
    };
    let mut bindings = wasm_bindgen_cli_support::Bindgen::new();
    let made = bindings
        .input_path(wasm)
        .typescript(true)
        .omit_default_module_path(false)
        .remove_name_section(true)
        .remove_producers_section(true)
        .web(true)
        .and_then(|bindings| bindings.generate(folder));
    match made {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("eplb-web-build: {wasm}: {error:#}");
            ExitCode::FAILURE
        }
    }
}
