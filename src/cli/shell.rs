//! `corelay completions` and `corelay man`: made from the same description as `--help`.

use std::io::Write;
use std::path::PathBuf;

use clap::CommandFactory;
use clap_complete::Shell;
use clap_mangen::Man;

use super::Cli;
use super::exit::Failure;

/// Print completions for a shell
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  corelay completions bash > /usr/share/bash-completion/completions/corelay
  corelay completions zsh > ~/.zfunc/_corelay
  corelay completions fish > ~/.config/fish/completions/corelay.fish")]
pub(crate) struct CompletionsArgs {
    /// Which shell
    shell: Shell,
}

/// Print the manual page, or write one for each command
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Examples:
  corelay man | man -l -
  corelay man --dir /usr/local/share/man/man1")]
pub(crate) struct ManArgs {
    /// Write corelay.1, corelay-serve.1 and so on into this directory
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

pub(crate) fn completions(args: CompletionsArgs) -> Result<(), Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "corelay", &mut script);
    std::io::stdout().write_all(&script).map_err(|error| Failure::stdout(&error))
}

pub(crate) fn man(args: ManArgs) -> Result<(), Failure> {
    let mut command = Cli::command();
    command.build();
    match args.dir {
        Some(dir) => clap_mangen::generate_to(command, &dir)
            .map(drop)
            .map_err(|error| Failure::local(format!("cannot write to {}: {error}", dir.display()))),
        None => {
            let mut page = Vec::new();
            Man::new(command).render(&mut page).map_err(|error| Failure::stdout(&error))?;
            std::io::stdout().write_all(&page).map_err(|error| Failure::stdout(&error))
        }
    }
}
