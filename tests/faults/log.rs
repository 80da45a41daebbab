//! What a broker says.

use std::io::{BufRead, BufReader};
use std::sync::mpsc::{self, Receiver};
use std::thread;
use std::time::Duration;

use crate::run::Broker;

/// The lines of a broker's log, which always has a reader.
pub struct Log(Receiver<String>);

impl Log {
    /// Of a broker whose stderr is piped.
    pub fn of(broker: &mut Broker) -> Log {
        let (sender, lines) = mpsc::channel();
        let from = broker.process.0.stderr.take().expect("stderr is piped");
        thread::spawn(move || {
            for line in BufReader::new(from).lines().map_while(Result::ok) {
                let _ = sender.send(line);
            }
        });
        Log(lines)
    }

    /// The next line with these words.
    pub fn find(&self, words: &str) -> String {
        loop {
            let line = self.0.recv_timeout(Duration::from_secs(20)).expect(words);
            if line.contains(words) {
                return line;
            }
        }
    }

    /// How many lines there are by now with these words, from the next on.
    pub fn count(&self, words: &str) -> usize {
        self.0.try_iter().filter(|line| line.contains(words)).count()
    }
}
