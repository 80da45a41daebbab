//! Configuration from any text: it is refused by name, or it is one that can be shown and read again.

use std::collections::HashMap;

use corelay::forward::redact;

use super::{Config, ConfigError, Loaded, auth, source, table};

/// Reads `data` behind its first byte as that says: a TOML file, `--set` arguments or variables, one a line.
///
/// # Panics
/// If a refusal says nothing, or what is shown of a configuration is another.
pub(crate) fn config(data: &[u8]) {
    let Some((&kind, text)) = data.split_first() else { return };
    let text = String::from_utf8_lossy(text);
    let lines = || text.lines().map(str::to_owned).collect::<Vec<_>>();
    let read = match kind % 3 {
        0 => read(&text),
        1 => source::set(&lines()).and_then(|set| settled(|loaded| loaded.apply_all(set))),
        _ => {
            let pair = |line: &String| line.split_once('=').map(|(name, value)| (name.to_owned(), value.to_owned()));
            let variables: Vec<_> = lines().iter().filter_map(pair).collect();
            settled(|loaded| {
                let known = table::entries_of(&loaded.config);
                loaded.apply_all(source::environment(&variables, &known)?)
            })
        }
    };
    match read {
        Ok(mut loaded) => {
            let shown = loaded.to_toml();
            // passwords are not shown
            for producer in &mut loaded.config.server.producers {
                producer.url.0 = producer.url.to_string();
            }
            loaded.config.otlp = loaded.config.otlp.map(|url| redact(&url));
            match self::read(&shown) {
                Ok(again) => assert_eq!(again.config, loaded.config, "shown as\n{shown}"),
                Err(error) => panic!("{error}, in what was shown:\n{shown}"),
            }
        }
        Err(error) => assert!(error.to_string().contains(": "), "{error:?} says too little"),
    }
}

fn read(text: &str) -> Result<Loaded, ConfigError> {
    let assignments = source::text("fuzz.toml", text)?;
    settled(|loaded| loaded.apply_all(assignments))
}

/// The defaults with these changes, checked.
fn settled(change: impl FnOnce(&mut Loaded) -> Result<(), ConfigError>) -> Result<Loaded, ConfigError> {
    let mut loaded = Loaded { config: Config::default(), warnings: Vec::new(), origins: HashMap::new() };
    change(&mut loaded)?;
    // files that the input names are not read
    let auth = &loaded.config.auth;
    if auth.file.is_none() && auth.tokens.iter().all(|token| token.file.is_none()) {
        auth::resolve(&mut loaded.config, &loaded.origins)?;
    }
    loaded.check()?;
    Ok(loaded)
}
