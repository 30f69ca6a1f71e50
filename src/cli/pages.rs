//! `eplb completions` and `eplb man`: what a shell and a manual need, made from the options themselves.

use std::process::ExitCode;

use clap::{Args, CommandFactory};
use clap_complete::Shell;

use super::{Command, io};
use crate::Error;

#[derive(Args)]
#[command(after_help = "Examples:
  eplb completions bash > ~/.local/share/bash-completion/completions/eplb

Exit codes: 0 printed, 2 bad input.")]
pub struct Completions {
    /// The shell
    shell: Shell,
}

impl Completions {
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut script = Vec::new();
        clap_complete::generate(self.shell, &mut Command::command(), "eplb", &mut script);
        io::print(String::from_utf8_lossy(&script).trim_end());
        Ok(ExitCode::SUCCESS)
    }
}

#[derive(Args)]
#[command(after_help = "Examples:
  eplb man > eplb.1
  eplb man plan > eplb-plan.1
  eplb man plan | man -l -

Exit codes: 0 printed, 2 bad input.")]
pub struct Man {
    /// The verb that the page is about; the whole command where none is given
    verb: Option<String>,
}

impl Man {
    pub fn run(self) -> Result<ExitCode, Error> {
        let mut command = Command::command();
        command.build();
        let page = match &self.verb {
            None => command,
            Some(verb) => {
                let found = command.get_subcommands().find(|sub| sub.get_name() == verb).cloned();
                found.ok_or_else(|| {
                    Error::invalid("verb", verb, "is none of this command; eplb --help lists them")
                })?
            }
        };
        let mut text = Vec::new();
        let made = clap_mangen::Man::new(page).render(&mut text);
        made.map_err(|error| Error::invalid("man page", "", error.to_string()))?;
        io::print(String::from_utf8_lossy(&text).trim_end());
        Ok(ExitCode::SUCCESS)
    }
}
