//! Progress on the standard error stream: a bar for each lane on a terminal, a line for each epoch elsewhere.

use std::io::{self, IsTerminal, Write};
use std::path::PathBuf;
use std::sync::LazyLock;
use std::time::{Duration, Instant};

use indexmap::IndexMap;
use indicatif::{MultiProgress, ProgressBar, ProgressDrawTarget, ProgressStyle};
use limbeck::event::{Event, LaneInfo, Observer};
use limbeck::record::{EpochRecord, Outcome};
use limbeck::task::Metrics;
use limbeck_report::words::plural;

/// All bars of the process: whoever writes to the standard error stream has to ask them to step aside.
static BARS: LazyLock<MultiProgress> =
    LazyLock::new(|| MultiProgress::with_draw_target(ProgressDrawTarget::stderr_with_hz(5)));

/// Name, bar and what was measured; the message is cut at the terminal's edge, so it has the important first.
const TEMPLATE: &str = "{prefix:16} {bar:8} {percent:>3}% {wide_msg}";

/// How many names of variables a warning lists.
const LISTED: usize = 4;

/// The standard error stream beside the bars: what is written appears above them.
#[derive(Clone, Copy, Debug, Default)]
pub struct Stderr;

impl Write for Stderr {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        BARS.suspend(|| io::stderr().lock().write_all(buffer))?;
        Ok(buffer.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        io::stderr().flush()
    }
}

/// Shows what a cohort does. Cohorts may follow one another; a lane is known by its run folder.
pub struct Progress {
    bars: bool,
    lines: Box<dyn Write>,
    lanes: IndexMap<PathBuf, Lane>,
}

impl std::fmt::Debug for Progress {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Progress").field("bars", &self.bars).field("lanes", &self.lanes).finish_non_exhaustive()
    }
}

impl Default for Progress {
    fn default() -> Self {
        Progress::new()
    }
}

impl Progress {
    /// Bars if the standard error stream is a terminal, lines if it is not.
    pub fn new() -> Self {
        Progress { bars: io::stderr().is_terminal(), lines: Box::new(Stderr), lanes: IndexMap::new() }
    }

    /// Lines, written to `lines`.
    pub fn lines_to(lines: impl Write + 'static) -> Self {
        Progress { bars: false, lines: Box::new(lines), lanes: IndexMap::new() }
    }

    /// Progress must not end a run: what cannot be written is lost.
    fn say(&mut self, text: &str) {
        let _ = writeln!(self.lines, "{text}");
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.lanes.values().for_each(Lane::clear);
    }
}

/// What is known of a lane.
#[derive(Debug)]
struct Lane {
    bar: ProgressBar,
    stage: String,
    epochs: u64,
    steps_per_epoch: u64,
    /// The step at which this process took the stage up, and when.
    began: (u64, Instant),
    samples_per_second: Option<f64>,
    /// The last known test accuracy.
    test: Option<Metrics>,
}

impl Lane {
    fn new(bars: bool, name: &str) -> Self {
        let bar = if bars {
            let style = ProgressStyle::with_template(TEMPLATE);
            BARS.add(ProgressBar::new(0).with_style(style.unwrap_or_else(|_| ProgressStyle::default_bar())))
        } else {
            ProgressBar::hidden()
        };
        bar.set_prefix(name.to_owned());
        Lane {
            bar,
            stage: String::new(),
            epochs: 0,
            steps_per_epoch: 0,
            began: (0, Instant::now()),
            samples_per_second: None,
            test: None,
        }
    }

    /// The time that the rest of the stage takes if it goes on as it went since this process took it up: other lanes and
    /// evaluations included.
    fn left(&self, step: u64, now: Instant) -> Option<Duration> {
        let (first, since) = self.began;
        let rest = (self.epochs * self.steps_per_epoch).saturating_sub(step);
        let done = step.saturating_sub(first);
        (rest > 0 && done > 0).then(|| now.duration_since(since).mul_f64(rest as f64 / done as f64))
    }

    fn message(&self, epoch: u64, step: u64, loss: Option<f64>, train_top1: Option<f64>, now: Instant) -> String {
        let stage = if self.stage == "main" { String::new() } else { format!("{} ", self.stage) };
        let mut parts = vec![format!("{stage}{epoch}/{}", self.epochs)];
        parts.extend(loss.map(|loss| format!("loss {loss:.3}")));
        parts.extend(self.test.map(|test| format!("test {}", test.show())));
        parts.extend(self.left(step, now).map(|left| format!("{} left", clock(left))));
        parts.extend(self.samples_per_second.map(|rate| format!("{rate:.0} samples/s")));
        if let Some(top1) = train_top1 {
            let place = if self.test.is_some() { parts.len() } else { parts.len().min(2) };
            parts.insert(place, format!("train {top1:.2} %"));
        }
        parts.join(" · ")
    }

    /// Shows a stage from `step` on; returns it in words.
    fn take_up(&mut self, stage: &str, epochs: u64, steps_per_epoch: u64, step: u64, now: Instant) -> String {
        (self.stage, self.epochs, self.steps_per_epoch) = (stage.to_owned(), epochs, steps_per_epoch);
        self.began = (step, now);
        self.bar.set_length(epochs * steps_per_epoch);
        self.bar.set_position(step);
        self.bar.set_message(format!("{stage} {}/{epochs}", step / steps_per_epoch.max(1)));
        format!("{stage}: {} of {}", plural(epochs, "epoch"), plural(steps_per_epoch, "step"))
    }

    /// Takes its bar off the screen.
    fn clear(&self) {
        self.bar.finish_and_clear();
        BARS.remove(&self.bar);
    }
}

/// `0:00:05`, `12:34:56`
fn clock(duration: Duration) -> String {
    let seconds = duration.as_secs_f64().round() as u64;
    format!("{}:{:02}:{:02}", seconds / 3600, seconds / 60 % 60, seconds % 60)
}

/// The line of an epoch.
fn epoch_line(lane: &Lane, record: &EpochRecord, now: Instant) -> String {
    let mut text = format!("{} epoch {}/{}:", record.stage, record.epoch, lane.epochs);
    if let Some(loss) = record.train.get("loss") {
        text += &format!(" loss {loss:.4},");
    }
    if let Some(top1) = record.train_top1 {
        text += &format!(" train {top1:.2} %,");
    }
    if let Some(validation) = &record.validation {
        text += &format!(" validation {},", validation.show());
    }
    if let Some(test) = &record.test {
        text += &format!(" test {}", test.show());
        let beside: Vec<String> =
            test.beside().map(|(metric, value)| format!("{} {}", metric.short, metric.show(value))).collect();
        if !beside.is_empty() {
            text += &format!(" ({})", beside.join(", "));
        }
        text.push(',');
    }
    text.truncate(text.trim_end_matches(',').len());
    if let Some(rate) = lane.samples_per_second {
        text += &format!(", {rate:.0} samples/s");
    }
    if let Some(left) = lane.left(record.step, now) {
        text += &format!(", {} left", clock(left));
    }
    text
}

/// `5 variables …: a, b, c, d and 1 more`
fn unreached(names: &[String]) -> String {
    let listed = names.iter().take(LISTED).map(String::as_str).collect::<Vec<&str>>().join(", ");
    let more = if names.len() > LISTED { format!(" and {} more", names.len() - LISTED) } else { String::new() };
    let variables = plural(names.len() as u64, "variable");
    let verb = if names.len() == 1 { "does" } else { "do" };
    format!("{variables} {verb} not train in this stage, for the loss does not reach them: {listed}{more}")
}

impl Observer for Progress {
    fn event(&mut self, info: &LaneInfo, event: &Event) {
        let bars = self.bars;
        let lane = self.lanes.entry(info.folder.clone()).or_insert_with(|| Lane::new(bars, &info.name));
        let now = Instant::now();
        let mut lines = Vec::new();
        match event {
            Event::Resumed { stage, epochs, steps_per_epoch, step, .. } => {
                let text = lane.take_up(stage, *epochs, *steps_per_epoch, *step, now);
                if !bars {
                    lines.push(format!("{text}, going on after step {step}"));
                }
            }
            Event::StageStarted { stage, epochs, steps_per_epoch, unreached: names } => {
                let text = lane.take_up(stage, *epochs, *steps_per_epoch, 0, now);
                if !bars {
                    lines.push(text);
                }
                if !names.is_empty() {
                    lines.push(format!("warning: {stage}: {}", unreached(names)));
                }
            }
            Event::Step { epoch, step, train, train_top1, samples_per_second, .. } => {
                lane.samples_per_second = Some(*samples_per_second);
                lane.bar.set_position(*step);
                lane.bar.set_message(lane.message(*epoch, *step, train.get("loss").copied(), *train_top1, now));
            }
            Event::Epoch(record) => {
                lane.test = record.test.or(lane.test);
                let loss = record.train.get("loss").copied();
                lane.bar.set_position(record.step);
                lane.bar.set_message(lane.message(record.epoch, record.step, loss, record.train_top1, now));
                if !bars {
                    lines.push(epoch_line(lane, record, now));
                }
            }
            Event::Checkpoint { path, .. } => tracing::debug!(lane = info.name, path = %path.display(), "checkpoint"),
            Event::Warning { message } => lines.push(format!("warning: {message}")),
            Event::Ended(Outcome::Finished) => {
                lane.clear();
                if bars {
                    let test = lane.test.map(|test| format!(", test {}", test.show())).unwrap_or_default();
                    lines.push(format!("finished{test}"));
                }
            }
            Event::Ended(Outcome::Failed { reason, checkpoint }) => {
                lane.clear();
                let kept = match checkpoint {
                    Some(path) => format!("the last good checkpoint is {}", path.display()),
                    None => "there is no good checkpoint".to_owned(),
                };
                lines.push(format!("failed: {reason}; {kept}"));
            }
        }
        for line in lines {
            self.say(&format!("{}: {line}", info.name));
        }
    }
}

#[cfg(test)]
mod tests {
    use limbeck::task::Classification;

    use super::*;
    use std::cell::RefCell;
    use std::rc::Rc;

    #[derive(Clone, Default)]
    struct Buffer(Rc<RefCell<Vec<u8>>>);

    impl Write for Buffer {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn lane(name: &str) -> LaneInfo {
        LaneInfo { index: 0, lanes: 2, name: name.to_owned(), folder: PathBuf::from(name) }
    }

    fn started(stage: &str, unreached: &[&str]) -> Event {
        let unreached = unreached.iter().map(|name| (*name).to_owned()).collect();
        Event::StageStarted { stage: stage.to_owned(), epochs: 2, steps_per_epoch: 10, unreached }
    }

    fn resumed(step: u64) -> Event {
        Event::Resumed {
            stage: "main".to_owned(),
            epochs: 2,
            steps_per_epoch: 10,
            step,
            open: false,
            path: PathBuf::from("c"),
        }
    }

    fn epoch(epoch: u64, test: Option<f64>) -> Event {
        Event::Epoch(EpochRecord {
            stage: "main".to_owned(),
            epoch,
            step: 10 * epoch,
            learning_rate: 0.05,
            train: IndexMap::from([("loss".to_owned(), 1.5)]),
            train_top1: Some(40.0),
            validation: None,
            test: test.and_then(|top1| Metrics::new(&Classification, &[top1, 80.0, 1.0]).ok()),
            seconds: 1.0,
        })
    }

    #[test]
    fn lines_name_their_lane_and_say_everything_once() {
        let buffer = Buffer::default();
        let mut progress = Progress::lines_to(buffer.clone());
        let (kd, crd) = (lane("kd, seed 0"), lane("crd, seed 0"));
        progress.event(&kd, &resumed(10));
        progress.event(&crd, &started("initial:ab", &["a", "b", "c", "d", "e"]));
        progress.event(&kd, &Event::Warning { message: "2 tap pairs were left out".to_owned() });
        progress.event(&kd, &epoch(2, Some(50.0)));
        let checkpoint = Some(PathBuf::from("crd/checkpoint"));
        progress.event(&crd, &Event::Ended(Outcome::Failed { reason: "loss is nan at step 3".to_owned(), checkpoint }));
        progress.event(&kd, &Event::Ended(Outcome::Finished));
        assert_eq!(
            String::from_utf8(buffer.0.take()).unwrap(),
            "kd, seed 0: main: 2 epochs of 10 steps, going on after step 10\n\
             crd, seed 0: initial:ab: 2 epochs of 10 steps\n\
             crd, seed 0: warning: initial:ab: 5 variables do not train in this stage, for the loss does not reach them: a, b, c, d and 1 more\n\
             kd, seed 0: warning: 2 tap pairs were left out\n\
             kd, seed 0: main epoch 2/2: loss 1.5000, train 40.00 %, test 50.00 % (top-5 80.00 %)\n\
             crd, seed 0: failed: loss is nan at step 3; the last good checkpoint is crd/checkpoint\n"
        );
    }

    #[test]
    fn time_left_counts_from_where_this_process_took_over() {
        let mut lane = Lane::new(false, "kd");
        (lane.stage, lane.epochs, lane.steps_per_epoch) = ("main".to_owned(), 10, 100);
        let now = Instant::now();
        lane.began = (500, now);
        lane.samples_per_second = Some(1234.4);
        lane.test = Metrics::new(&Classification, &[51.0, 80.0, 1.0]).ok();
        let later = now + Duration::from_secs(60);
        // 100 steps in 60 s, 400 to go.
        assert_eq!(lane.left(600, later), Some(Duration::from_secs(240)));
        assert_eq!(
            lane.message(6, 600, Some(1.25), Some(48.5), later),
            "6/10 · loss 1.250 · test 51.00 % · 0:04:00 left · 1234 samples/s · train 48.50 %"
        );
        (lane.stage, lane.test) = ("initial:ab".to_owned(), None);
        assert_eq!(
            lane.message(6, 600, Some(1.25), Some(48.5), later),
            "initial:ab 6/10 · loss 1.250 · train 48.50 % · 0:04:00 left · 1234 samples/s"
        );
        assert_eq!(lane.left(500, later), None);
        assert_eq!(lane.left(1000, later), None);
    }
}
