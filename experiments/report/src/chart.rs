//! Charts as SVG elements. Colours are classes of the page's style (`page.css`), so that they are right by day and by
//! night: `s0`, `s1`, … for methods, `ink` for text, `rule` for lines.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use limbeck::task::Better;

/// The colours that methods have; more methods than this are told apart by dashes.
pub const COLOURS: usize = 8;

/// The drawing area; what stands outside it is axes.
const LEFT: f64 = 62.0;
const TOP: f64 = 12.0;
const WIDTH: f64 = 406.0;
const HEIGHT: f64 = 220.0;

/// The class of a method's lines and points: its colour and its dashes.
pub fn class(index: usize) -> String {
    format!("s{} d{}", index % COLOURS, index / COLOURS % 3)
}

/// A line of a chart.
#[derive(Clone, Debug)]
pub struct Series {
    /// For people who point at it.
    pub name: String,
    /// Its place in the legend.
    pub index: usize,
    /// (x, y, deviation of y), in the order of x.
    pub points: Vec<(f64, f64, Option<f64>)>,
}

/// A point with a name.
#[derive(Clone, Debug)]
pub struct Spot {
    pub name: String,
    pub index: usize,
    pub x: f64,
    pub y: f64,
    /// Of `y`.
    pub deviation: Option<f64>,
}

/// Text as it may stand in an element or an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}

fn svg(title: &str, width: f64, height: f64, content: &str) -> String {
    let title = escape(title);
    format!(
        "<svg viewBox=\"0 0 {width:.0} {height:.0}\" width=\"{width:.0}\" role=\"img\" aria-label=\"{title}\"><title>{title}</title>\n{content}</svg>"
    )
}

/// A scale from values to places, with round ticks.
struct Scale {
    low: f64,
    high: f64,
    step: f64,
    start: f64,
    length: f64,
}

impl Scale {
    /// Over these values, about `count` ticks; negative `length` runs upwards.
    fn new(values: impl Iterator<Item = f64>, count: f64, start: f64, length: f64) -> Self {
        let (low, high) = ends(values.filter(|value| value.is_finite()));
        let (low, high) = if low > high { (0.0, 1.0) } else { (low, high) };
        let (low, high) = if high - low > 1e-12 * high.abs().max(1e-300) { (low, high) } else { widen(low) };
        let raw = (high - low) / count;
        let power = 10f64.powf(raw.log10().floor());
        let step = [1.0, 2.0, 5.0, 10.0].into_iter().map(|m| m * power).find(|step| *step >= raw).unwrap_or(power);
        Scale { low: (low / step).floor() * step, high: (high / step).ceil() * step, step, start, length }
    }

    /// The same for whole numbers: no ticks between them.
    fn whole(self) -> Self {
        let step = self.step.max(1.0);
        Scale { low: (self.low / step).floor() * step, high: (self.high / step).ceil() * step, step, ..self }
    }

    fn place(&self, value: f64) -> f64 {
        self.start + self.length * (value - self.low) / (self.high - self.low)
    }

    fn ticks(&self) -> impl Iterator<Item = f64> + '_ {
        let count = ((self.high - self.low) / self.step).round() as usize;
        (0..=count).map(|at| self.low + at as f64 * self.step)
    }

    /// A tick's number with as many digits as tell ticks apart.
    fn text(&self, tick: f64) -> String {
        if self.step < 1e-3 && tick.abs() > self.step / 2.0 || self.step > 1e5 {
            return format!("{tick:.1e}").replace('-', "−");
        }
        let digits = (-self.step.log10().floor()).clamp(0.0, 3.0) as usize;
        let text = format!("{tick:.digits$}");
        if text.trim_start_matches('-').chars().all(|c| matches!(c, '0' | '.')) {
            text.trim_start_matches('-').to_owned()
        } else {
            text.replace('-', "−")
        }
    }
}

/// An interval around a single value.
fn widen(value: f64) -> (f64, f64) {
    let by = if value == 0.0 { 1.0 } else { value.abs() * 0.1 };
    (value - by, value + by)
}

/// Grid, numbers and title of the vertical axis.
fn y_axis(y: &Scale, title: &str) -> String {
    let mut text = String::new();
    for tick in y.ticks() {
        let place = y.place(tick);
        let _ = writeln!(text, "<path class=\"rule\" d=\"M{LEFT} {place:.1}h{WIDTH}\"/>");
        label(&mut text, (LEFT - 6.0, place + 4.0), "end", &y.text(tick));
    }
    upright(&mut text, (12.0, TOP + HEIGHT / 2.0), title);
    text
}

/// Ticks, numbers and title of the horizontal axis.
fn x_axis(x: &Scale, title: &str) -> String {
    let mut text = String::new();
    let bottom = TOP + HEIGHT;
    for tick in x.ticks() {
        let place = x.place(tick);
        let _ = writeln!(text, "<path class=\"rule\" d=\"M{place:.1} {bottom}v4\"/>");
        label(&mut text, (place, bottom + 18.0), "middle", &x.text(tick));
    }
    label(&mut text, (LEFT + WIDTH / 2.0, bottom + 36.0), "middle", title);
    text
}

/// Text at a place.
fn label(text: &mut String, (x, y): (f64, f64), anchor: &str, words: &str) {
    let words = escape(words);
    let _ = writeln!(text, "<text class=\"ink\" x=\"{x:.1}\" y=\"{y:.1}\" text-anchor=\"{anchor}\">{words}</text>");
}

/// Text along a vertical axis, around a place.
fn upright(text: &mut String, (x, y): (f64, f64), words: &str) {
    let words = escape(words);
    let _ = writeln!(
        text,
        "<text class=\"ink\" transform=\"translate({x:.1} {y:.1}) rotate(-90)\" text-anchor=\"middle\">{words}</text>"
    );
}

/// Text that ends at a place and comes from below it.
fn slanted(text: &mut String, (x, y): (f64, f64), words: &str) {
    let words = escape(words);
    let _ = writeln!(
        text,
        "<text class=\"ink\" transform=\"translate({x:.1} {y:.1}) rotate(-40)\" text-anchor=\"end\">{words}</text>"
    );
}

/// The whole picture of a chart with axes.
fn chart(title: &str, x: &Scale, y: &Scale, titles: [&str; 2], content: &str) -> String {
    let axes = y_axis(y, titles[1]) + &x_axis(x, titles[0]);
    svg(title, LEFT + WIDTH + 12.0, TOP + HEIGHT + 44.0, &(axes + content))
}

fn scale_y(values: impl Iterator<Item = (f64, Option<f64>)>) -> Scale {
    let ends = values.flat_map(|(value, deviation)| {
        let deviation = deviation.unwrap_or(0.0);
        [value - deviation, value + deviation]
    });
    Scale::new(ends, 5.0, TOP + HEIGHT, -HEIGHT)
}

/// Lines over a common axis of whole numbers, with a band of one deviation to either side.
pub fn lines(title: &str, x_title: &str, y_title: &str, series: &[Series]) -> String {
    let x = Scale::new(series.iter().flat_map(|series| &series.points).map(|point| point.0), 6.0, LEFT, WIDTH).whole();
    let y = scale_y(series.iter().flat_map(|series| &series.points).map(|point| (point.1, point.2)));
    let text = drawn(series, &|value| x.place(value), &y, &|value| value.to_string());
    chart(title, &x, &y, [x_title, y_title], &text)
}

/// Lines over the values of a setting, by their numbers from 0, with a band of one deviation to either side.
///
/// Numbers have their own axis, a logarithmic one if they span more than a factor of ten; other values stand side by side.
pub fn settings(title: &str, x_title: &str, y_title: &str, values: &[&str], series: &[Series]) -> String {
    let places = places(values);
    let y = scale_y(series.iter().flat_map(|series| &series.points).map(|point| (point.1, point.2)));
    let text = drawn(series, &|value| places.get(value as usize).copied().unwrap_or(LEFT), &y, &|value| {
        values.get(value as usize).map_or_else(String::new, |name| (*name).to_owned())
    });
    let (axis, below) = named_axis(values, &places, x_title);
    svg(title, LEFT + WIDTH + 12.0, TOP + HEIGHT + below, &(y_axis(&y, y_title) + &axis + &text))
}

/// The values of a setting as numbers, if all of them are.
pub fn numbers(values: &[&str]) -> Option<Vec<f64>> {
    values.iter().map(|value| value.parse().ok().filter(|number: &f64| number.is_finite())).collect()
}

/// Where the values of a setting stand on the horizontal axis.
fn places(values: &[&str]) -> Vec<f64> {
    let Some(numbers) = numbers(values) else {
        return (0..values.len()).map(|at| LEFT + WIDTH * (at as f64 + 0.5) / values.len() as f64).collect();
    };
    let (low, high) = ends(numbers.iter().copied());
    let wide = low > 0.0 && high / low > 10.0;
    let numbers: Vec<f64> = if wide { numbers.into_iter().map(f64::ln).collect() } else { numbers };
    let (low, high) = ends(numbers.iter().copied());
    let margin = 0.05 * WIDTH;
    let mut places = Vec::new();
    for value in numbers {
        let share = if high > low { (value - low) / (high - low) } else { 0.5 };
        places.push(LEFT + margin + (WIDTH - 2.0 * margin) * share);
    }
    places
}

/// The lowest and the highest of some numbers.
fn ends(values: impl Iterator<Item = f64>) -> (f64, f64) {
    values.fold((f64::MAX, f64::MIN), |(low, high), value| (low.min(value), high.max(value)))
}

/// The horizontal axis with a tick and a name for each value, slanted where they are long; names that would cover others
/// are left out. With the room that it takes below the chart.
fn named_axis(values: &[&str], places: &[f64], title: &str) -> (String, f64) {
    let bottom = TOP + HEIGHT;
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|a, b| places[*a].total_cmp(&places[*b]));
    let widths: Vec<f64> = values.iter().map(|value| 7.2 * value.chars().count() as f64).collect();
    let are_numbers = numbers(values).is_some();
    let is_slanted = !are_numbers
        && order.windows(2).any(|pair| {
            let (one, next) = (pair[0], pair[1]);
            places[next] - places[one] <= (widths[one] + widths[next]) / 2.0 + 6.0
        });
    let mut text = String::new();
    let mut taken = f64::MIN;
    for at in order {
        let place = places[at];
        let _ = writeln!(text, "<path class=\"rule\" d=\"M{place:.1} {bottom}v4\"/>");
        if is_slanted {
            slanted(&mut text, (place + 4.0, bottom + 14.0), values[at]);
        } else if place - widths[at] / 2.0 > taken + 4.0 {
            label(&mut text, (place, bottom + 18.0), "middle", values[at]);
            taken = place + widths[at] / 2.0;
        }
    }
    let longest = values.iter().map(|value| value.chars().count()).max().unwrap_or(0) as f64;
    let depth = if is_slanted { 26.0 + 4.8 * longest } else { 36.0 };
    label(&mut text, (LEFT + WIDTH / 2.0, bottom + depth), "middle", title);
    (text, depth + 8.0)
}

/// Lines, their bands and their points; `name` says where a point is.
fn drawn(series: &[Series], x: &dyn Fn(f64) -> f64, y: &Scale, name_of: &dyn Fn(f64) -> String) -> String {
    let mut text = String::new();
    for Series { index, points, .. } in series {
        if points.iter().any(|point| point.2.is_some_and(|deviation| deviation > 0.0)) {
            let upper = points.iter().map(|(x, y, deviation)| (*x, y + deviation.unwrap_or(0.0)));
            let lower = points.iter().map(|(x, y, deviation)| (*x, y - deviation.unwrap_or(0.0)));
            let outline: Vec<(f64, f64)> = upper.chain(lower.rev()).collect();
            let _ = writeln!(text, "<path class=\"band {}\" d=\"{}Z\"/>", class(*index), path(&outline, x, y));
        }
    }
    for Series { name, index, points } in series {
        let line: Vec<(f64, f64)> = points.iter().map(|point| (point.0, point.1)).collect();
        let _ = writeln!(
            text,
            "<path class=\"line {}\" d=\"{}\"><title>{}</title></path>",
            class(*index),
            path(&line, x, y),
            escape(name)
        );
        if points.len() <= 40 {
            for point in points {
                let value = spread(point.1, point.2);
                dot(
                    &mut text,
                    *index,
                    (x(point.0), y.place(point.1), 2.5),
                    &format!("{name}, {}: {value}", name_of(point.0)),
                );
            }
        }
    }
    text
}

fn spread(value: f64, deviation: Option<f64>) -> String {
    let deviation = deviation.map(|deviation| format!(" ± {deviation:.3}")).unwrap_or_default();
    format!("{value:.3}{deviation}")
}

fn dot(text: &mut String, index: usize, (x, y, radius): (f64, f64, f64), title: &str) {
    let (class, title) = (class(index), escape(title));
    let _ = writeln!(
        text,
        "<circle class=\"dot {class}\" cx=\"{x:.1}\" cy=\"{y:.1}\" r=\"{radius}\"><title>{title}</title></circle>"
    );
}

fn path(points: &[(f64, f64)], x: &dyn Fn(f64) -> f64, y: &Scale) -> String {
    let mut text = String::new();
    for (at, point) in points.iter().enumerate() {
        let command = if at == 0 { 'M' } else { 'L' };
        let _ = write!(text, "{command}{:.1} {:.1}", x(point.0), y.place(point.1));
    }
    text
}

/// Named points, with one deviation up and down.
pub fn scatter(title: &str, x_title: &str, y_title: &str, spots: &[Spot]) -> String {
    let x = Scale::new(spots.iter().map(|spot| spot.x), 5.0, LEFT, WIDTH);
    let y = scale_y(spots.iter().map(|spot| (spot.y, spot.deviation)));
    let mut text = String::new();
    for spot in spots {
        let (place, height) = (x.place(spot.x), y.place(spot.y));
        if let Some(deviation) = spot.deviation {
            let ends = [y.place(spot.y - deviation), y.place(spot.y + deviation)];
            let class = class(spot.index);
            let _ = writeln!(text, "<path class=\"line {class}\" d=\"M{place:.1} {:.1}V{:.1}\"/>", ends[0], ends[1]);
        }
        let value = format!("{}: {:.3}, {}", spot.name, spot.x, spread(spot.y, spot.deviation));
        dot(&mut text, spot.index, (place, height, 5.0), &value);
    }
    for (spot, (place, height, anchor)) in spots.iter().zip(labels(spots, &x, &y)) {
        label(&mut text, (place, height), anchor, &spot.name);
    }
    chart(title, &x, &y, [x_title, y_title], &text)
}

/// Where the names of spots stand: beside them, towards the middle, moved up or down where another name is in the way.
fn labels(spots: &[Spot], x: &Scale, y: &Scale) -> Vec<(f64, f64, &'static str)> {
    const LINE: f64 = 14.0;
    let mut placed: Vec<(f64, f64, f64)> = Vec::new();
    let mut result = Vec::new();
    for spot in spots {
        let (place, height) = (x.place(spot.x), y.place(spot.y));
        let width = 7.5 * spot.name.chars().count() as f64;
        let right = place + 9.0 + width < LEFT + WIDTH;
        let start = if right { place + 9.0 } else { place - 9.0 - width };
        let beside: Vec<f64> = placed
            .iter()
            .filter(|(left, right, _)| start <= *right && start + width >= *left)
            .map(|(_, _, height)| *height)
            .collect();
        let offsets = (0..12).flat_map(|step| [f64::from(step) * LINE / 2.0, -f64::from(step) * LINE / 2.0]);
        let height = offsets
            .map(|offset| height + 4.0 + offset)
            .find(|height| beside.iter().all(|other| (height - other).abs() >= LINE - 1.0))
            .unwrap_or(height);
        placed.push((start, start + width, height));
        result.push(if right { (place + 9.0, height, "start") } else { (place - 9.0, height, "end") });
    }
    result
}

/// A bar up or down for each name; its colour says which way is `better`.
pub fn bars(title: &str, y_title: &str, bars: &[(String, f64)], better: Better) -> String {
    let x = Scale { low: 0.0, high: bars.len() as f64, step: bars.len() as f64, start: LEFT, length: WIDTH };
    let y = scale_y(bars.iter().map(|bar| (bar.1, None)).chain([(0.0, None)]));
    let (width, zero) = (WIDTH / bars.len().max(1) as f64, y.place(0.0));
    let mut text = y_axis(&y, y_title);
    for (at, (name, value)) in bars.iter().enumerate() {
        let (place, height) = (x.place(at as f64 + 0.1), y.place(*value));
        let class = if better.is_better(0.0, *value) { "below" } else { "above" };
        let (top, length) = (height.min(zero), (height - zero).abs());
        let _ = writeln!(
            text,
            "<rect class=\"{class}\" x=\"{place:.1}\" y=\"{top:.1}\" width=\"{:.1}\" height=\"{length:.1}\"><title>{}: {value:+.2}</title></rect>",
            width * 0.8,
            escape(name)
        );
        // Names where there is room for them; a hundred classes are pointed at.
        if bars.len() <= 24 {
            slanted(&mut text, (place + width * 0.4 + 4.0, TOP + HEIGHT + 14.0), name);
        }
    }
    let below = if bars.len() <= 24 { 84.0 } else { 12.0 };
    svg(title, LEFT + WIDTH + 12.0, TOP + HEIGHT + below, &text)
}

/// A matrix of numbers in colour, row by row from the top. Small ones have their numbers written in them; large ones are a
/// picture within the picture.
#[derive(Clone, Debug)]
pub struct Heat<'a> {
    pub title: &'a str,
    /// The names of rows and columns; empty where there are too many to be read.
    pub names: [Vec<String>; 2],
    /// What rows and columns are.
    pub sides: [&'a str; 2],
    pub values: Vec<Vec<Option<f64>>>,
    /// The value of the brightest colour; 0 is the darkest.
    pub most: f64,
}

impl Heat<'_> {
    /// Draws it.
    pub fn draw(&self) -> String {
        let (rows, columns) = (self.values.len(), self.values.first().map_or(0, Vec::len));
        let named = !self.names[0].is_empty();
        let margin = if named { 28.0 + 7.2 * longest(&self.names[0]) } else { 24.0 };
        let below = if named { 30.0 + 4.8 * longest(&self.names[1]) } else { 24.0 };
        let side = (
            (300.0 / columns.max(1) as f64).min(52.0),
            (300.0 / rows.max(1) as f64).min(if named { 34.0 } else { 52.0 }),
        );
        let (width, height) = (side.0 * columns as f64, side.1 * rows as f64);
        let mut text = if named { self.cells(margin, side) } else { self.pixels(margin, (width, height)) };
        for (row, name) in self.names[0].iter().enumerate() {
            let place = TOP + side.1 * (row as f64 + 0.5) + 4.0;
            label(&mut text, (margin - 6.0, place), "end", name);
        }
        for (column, name) in self.names[1].iter().enumerate() {
            let place = margin + side.0 * (column as f64 + 0.5) + 4.0;
            slanted(&mut text, (place, TOP + height + 14.0), name);
        }
        let bottom = TOP + height + below;
        label(&mut text, (margin + width / 2.0, bottom), "middle", self.sides[1]);
        upright(&mut text, (11.0, TOP + height / 2.0), self.sides[0]);
        let key = margin + width + 16.0;
        self.key(&mut text, key, height);
        svg(self.title, key + 56.0, bottom + 10.0, &text)
    }

    fn name(&self, side: usize, at: usize) -> &str {
        self.names[side].get(at).map_or("", String::as_str)
    }

    fn cells(&self, margin: f64, side: (f64, f64)) -> String {
        let mut text = String::new();
        for (row, values) in self.values.iter().enumerate() {
            for (column, value) in values.iter().enumerate() {
                let Some(value) = value else { continue };
                let share = value / self.most;
                let (x, y) = (margin + side.0 * column as f64, TOP + side.1 * row as f64);
                let [red, green, blue] = colour(share);
                let _ = writeln!(
                    text,
                    "<rect x=\"{x:.1}\" y=\"{y:.1}\" width=\"{:.1}\" height=\"{:.1}\" fill=\"#{red:02x}{green:02x}{blue:02x}\"><title>{} – {}: {value:.3}</title></rect>",
                    side.0,
                    side.1,
                    escape(self.name(0, row)),
                    escape(self.name(1, column))
                );
                if side.0 >= 28.0 {
                    let tone = if share > 0.6 { "dark" } else { "light" };
                    let _ = writeln!(
                        text,
                        "<text class=\"{tone}\" x=\"{:.1}\" y=\"{:.1}\" text-anchor=\"middle\">{value:.2}</text>",
                        x + side.0 / 2.0,
                        y + side.1 / 2.0 + 4.0
                    );
                }
            }
        }
        text
    }

    fn pixels(&self, margin: f64, (width, height): (f64, f64)) -> String {
        let rows = self.values.len();
        let columns = self.values.first().map_or(0, Vec::len);
        let bytes: Vec<u8> =
            self.values.iter().flatten().flat_map(|value| colour(value.unwrap_or(0.0) / self.most)).collect();
        let Some(png) = png([columns as u32, rows as u32], &bytes) else { return String::new() };
        format!(
            "<image x=\"{margin}\" y=\"{TOP}\" width=\"{width:.1}\" height=\"{height:.1}\" preserveAspectRatio=\"none\" \
             style=\"image-rendering:pixelated\" href=\"data:image/png;base64,{}\"/>\n",
            STANDARD.encode(png)
        )
    }

    /// What the colours mean.
    fn key(&self, text: &mut String, x: f64, height: f64) {
        const PARTS: usize = 24;
        let part = height / PARTS as f64;
        for at in 0..PARTS {
            let [red, green, blue] = colour(1.0 - (at as f64 + 0.5) / PARTS as f64);
            let _ = writeln!(
                text,
                "<rect x=\"{x:.1}\" y=\"{:.1}\" width=\"10\" height=\"{:.1}\" fill=\"#{red:02x}{green:02x}{blue:02x}\"/>",
                TOP + part * at as f64,
                part + 0.3
            );
        }
        for (value, place) in [(self.most, TOP + 10.0), (0.0, TOP + height)] {
            label(text, (x + 14.0, place), "start", &format!("{value:.2}"));
        }
    }
}

fn longest(names: &[String]) -> f64 {
    names.iter().map(|name| name.chars().count()).max().unwrap_or(0) as f64
}

/// An image of `[width, height]` pixels, three bytes each.
fn png([width, height]: [u32; 2], bytes: &[u8]) -> Option<Vec<u8>> {
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width, height);
    encoder.set_color(png::ColorType::Rgb);
    let mut writer = encoder.write_header().ok()?;
    writer.write_image_data(bytes).ok()?;
    writer.finish().ok()?;
    Some(file)
}

/// Dark violet over green to yellow, lighter as the share grows, for every kind of colour vision: Viridis' colours at
/// quarters, mixed between them.
fn colour(share: f64) -> [u8; 3] {
    const ANCHORS: [[f64; 3]; 5] =
        [[68.0, 1.0, 84.0], [59.0, 82.0, 139.0], [33.0, 145.0, 140.0], [94.0, 201.0, 98.0], [253.0, 231.0, 37.0]];
    let place = share.clamp(0.0, 1.0) * 4.0;
    let at = (place as usize).min(3);
    let part = place - at as f64;
    std::array::from_fn(|i| (ANCHORS[at][i] * (1.0 - part) + ANCHORS[at + 1][i] * part).round() as u8)
}

/// The critical difference diagram: methods on an axis of mean ranks, the best to the left; a bar joins those whose ranks
/// differ by less than the critical difference.
pub fn ranks(title: &str, methods: &[(String, f64)], critical: f64) -> String {
    const LINE: f64 = 20.0;
    let mut order: Vec<&(String, f64)> = methods.iter().collect();
    order.sort_by(|a, b| a.1.total_cmp(&b.1));
    let (count, half) = (order.len(), order.len().div_ceil(2));
    let (left, width) = (110.0, 260.0);
    let x = |rank: f64| left + width * (rank - 1.0) / (count as f64 - 1.0);
    let groups = groups(&order.iter().map(|method| method.1).collect::<Vec<f64>>(), critical);
    let axis = 66.0;
    let names = axis + 24.0 + 9.0 * groups.len() as f64;
    let mut text = format!("<path class=\"axis\" d=\"M{left} {axis}h{width}\"/>\n");
    for rank in 1..=count {
        let place = x(rank as f64);
        let _ = writeln!(text, "<path class=\"axis\" d=\"M{place:.1} {axis}v-6\"/>");
        label(&mut text, (place, axis - 11.0), "middle", &rank.to_string());
    }
    let end = x(1.0) + (x(2.0) - x(1.0)) * critical;
    let end = end.min(left + width + 100.0);
    let _ = writeln!(text, "<path class=\"axis\" d=\"M{left} 20v-8M{left} 16H{end:.1}M{end:.1} 20v-8\"/>");
    label(&mut text, (left, 34.0), "start", &format!("critical difference {critical:.2}"));
    for (at, (first, last)) in groups.iter().enumerate() {
        let y = axis + 12.0 + 9.0 * at as f64;
        let ends = [x(order[*first].1) - 3.0, x(order[*last].1) + 3.0];
        let _ = writeln!(text, "<path class=\"join\" d=\"M{:.1} {y:.1}H{:.1}\"/>", ends[0], ends[1]);
    }
    for (at, (name, rank)) in order.iter().enumerate() {
        let place = x(*rank);
        let (line, side, anchor) =
            if at < half { (at, left - 8.0, "end") } else { (count - 1 - at, left + width + 8.0, "start") };
        let y = names + LINE * line as f64;
        let _ = writeln!(text, "<path class=\"rule strong\" d=\"M{place:.1} {axis}V{y:.1}H{side:.1}\"/>");
        let text_at = if at < half { side - 4.0 } else { side + 4.0 };
        label(&mut text, (text_at, y + 4.0), anchor, &format!("{name} {rank:.2}"));
    }
    svg(title, 480.0, names + LINE * half as f64, &text)
}

/// The largest runs of sorted ranks that lie within the critical difference, two methods at least: (first, last).
fn groups(ranks: &[f64], critical: f64) -> Vec<(usize, usize)> {
    let mut groups: Vec<(usize, usize)> = Vec::new();
    for first in 0..ranks.len() {
        let last = (first..ranks.len()).take_while(|at| ranks[*at] - ranks[first] <= critical).last().unwrap_or(first);
        if last > first && groups.last().is_none_or(|group| last > group.1) {
            groups.push((first, last));
        }
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ticks(values: [f64; 2]) -> Vec<String> {
        let scale = Scale::new(values.into_iter(), 5.0, 0.0, 1.0);
        scale.ticks().map(|tick| scale.text(tick)).collect()
    }

    #[test]
    fn ticks_are_round() {
        assert_eq!(ticks([0.0, 100.0]), ["0", "20", "40", "60", "80", "100"]);
        assert_eq!(ticks([-0.031, 0.02]), ["−0.04", "−0.02", "0.00", "0.02"]);
        assert_eq!(ticks([61.2, 61.2]), ["55", "60", "65", "70"]);
        assert_eq!(ticks([0.0, 0.0002]), ["0.000", "5.0e−5", "1.0e−4", "1.5e−4", "2.0e−4"]);
        let whole = Scale::new([1.0, 4.0].into_iter(), 6.0, 0.0, 1.0).whole();
        assert_eq!(whole.ticks().collect::<Vec<f64>>(), [1.0, 2.0, 3.0, 4.0]);
        assert_eq!(ticks([f64::NAN, 7.0]).len(), ticks([7.0, 7.0]).len());
    }

    fn shares(values: &[&str]) -> Vec<i64> {
        places(values).iter().map(|place| (100.0 * (place - LEFT) / WIDTH).round() as i64).collect()
    }

    fn axis(values: &[&str]) -> String {
        named_axis(values, &places(values), "t").0
    }

    #[test]
    fn values_of_a_setting_stand_by_their_size() {
        assert_eq!(shares(&["0.0", "0.5", "1.0"]), [5, 50, 95]);
        // More than a factor of ten: logarithms. Ten itself is none.
        assert_eq!(shares(&["16", "256", "4096"]), [5, 50, 95]);
        assert_eq!(shares(&["1", "10"]), [5, 95]);
        assert_eq!(shares(&["0", "50", "100"]), [5, 50, 95]);
        assert_eq!(shares(&["nce", "0.5", "mlp", "x"]), [13, 38, 63, 88]);
        assert_eq!(shares(&["7"]), [50]);
        let crowded = axis(&["0.02", "0.05", "0.07", "0.1", "0.11", "0.3"]);
        assert!(crowded.contains(">0.1<") && !crowded.contains(">0.11<"), "{crowded}");
        assert!(axis(&["a short one", "other"]).matches("rotate").count() == 0);
        let long = ["other_instance"; 5];
        assert_eq!(axis(&long).matches("rotate").count(), 5);
    }

    #[test]
    fn groups_are_the_largest() {
        assert_eq!(groups(&[1.0, 1.5, 2.0, 4.0], 1.0), [(0, 2)]);
        assert_eq!(groups(&[1.0, 1.8, 2.6, 4.0], 1.0), [(0, 1), (1, 2)]);
        assert!(groups(&[1.0, 3.0], 1.0).is_empty());
    }

    #[test]
    fn names_cannot_break_out_of_a_picture() {
        let spot = Spot { name: "<b>&\"".to_owned(), index: 0, x: 1.0, y: 2.0, deviation: None };
        let text = scatter("<title>", "x", "y", &[spot]);
        assert!(text.contains("&lt;b&gt;&amp;&quot;") && !text.contains("<b>"), "{text}");
    }

    #[test]
    fn colours_go_from_dark_to_light() {
        assert_eq!((colour(0.0), colour(0.5), colour(2.0)), ([68, 1, 84], [33, 145, 140], [253, 231, 37]));
    }

    #[test]
    fn a_large_matrix_is_an_image_of_its_values() {
        let values: Vec<Vec<Option<f64>>> =
            (0..40).map(|row| (0..30).map(|_| Some(f64::from(row) / 39.0)).collect()).collect();
        let heat = Heat { title: "t", names: Default::default(), sides: ["a", "b"], values, most: 1.0 };
        let text = heat.draw();
        let encoded = text.split("base64,").nth(1).unwrap().split('"').next().unwrap();
        let file = STANDARD.decode(encoded).unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(file)).read_info().unwrap();
        let mut bytes = vec![0; reader.output_buffer_size().unwrap()];
        let info = reader.next_frame(&mut bytes).unwrap();
        assert_eq!((info.width, info.height), (30, 40));
        assert_eq!((&bytes[..3], &bytes[bytes.len() - 3..]), (&colour(0.0)[..], &colour(1.0)[..]));
    }
}
