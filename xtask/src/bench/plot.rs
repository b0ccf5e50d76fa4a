//! Lines in an SVG, readable on light and dark ground.

use std::fmt::Write;

use super::Plot;

pub(super) fn svg(plot: &Plot) -> String {
    let points = || plot.lines.iter().flat_map(|(_, points)| points);
    let right = nice(points().map(|point| point.0).fold(0.0, f64::max));
    let top = nice(points().map(|point| point.1).fold(0.0, f64::max));
    let x = |value: f64| LEFT + value / right * (WIDTH - LEFT - MARGIN);
    let y = |value: f64| HEIGHT - BOTTOM - value / top * (HEIGHT - BOTTOM - TOP);
    let mut out = format!(
        r##"<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="sans-serif" font-size="12" fill="#777">
<text x="{LEFT}" y="20" font-size="14">{}</text>
"##,
        plot.title
    );
    for step in 0..=4 {
        let share = f64::from(step) / 4.0;
        let (across, up) = (share * right, share * top);
        let _ = writeln!(
            out,
            r##"<line x1="{LEFT}" x2="{}" y1="{y}" y2="{y}" stroke="#777" stroke-opacity="0.3"/><text x="{}" y="{}" text-anchor="end">{}</text><text x="{}" y="{}" text-anchor="middle">{}</text>"##,
            WIDTH - MARGIN,
            LEFT - 6.0,
            y(up) + 4.0,
            short(up),
            x(across),
            HEIGHT - BOTTOM + 16.0,
            short(across),
            y = y(up),
        );
    }
    for (index, (name, points)) in plot.lines.iter().enumerate() {
        let colour = COLOURS.get(index % COLOURS.len()).copied().unwrap_or("#777");
        let path: Vec<String> = points
            .iter()
            .map(|point| format!("{:.1},{:.1}", x(point.0), y(point.1)))
            .collect();
        let _ = writeln!(
            out,
            r#"<polyline fill="none" stroke="{colour}" stroke-width="2" points="{}"/>"#,
            path.join(" ")
        );
        for point in points {
            let _ = writeln!(
                out,
                r#"<circle cx="{:.1}" cy="{:.1}" r="3" fill="{colour}"/>"#,
                x(point.0),
                y(point.1)
            );
        }
        #[expect(clippy::cast_precision_loss, reason = "a few lines")]
        let line = TOP + 14.0 + index as f64 * 16.0;
        let _ = writeln!(
            out,
            r#"<text x="{}" y="{line}" fill="{colour}">{name}</text>"#,
            LEFT + 10.0
        );
    }
    let _ = writeln!(
        out,
        r#"<text x="{}" y="{}" text-anchor="middle">{}</text>
<text x="14" y="{middle}" text-anchor="middle" transform="rotate(-90 14 {middle})">{}</text>
</svg>"#,
        f64::midpoint(LEFT, WIDTH),
        HEIGHT - 8.0,
        plot.x,
        plot.y,
        middle = HEIGHT / 2.0,
    );
    out
}

/// The next round number.
fn nice(value: f64) -> f64 {
    if value <= 0.0 {
        return 1.0;
    }
    let unit = 10_f64.powf(value.log10().floor());
    [1.0, 2.0, 4.0, 5.0, 8.0, 10.0]
        .into_iter()
        .map(|factor| factor * unit)
        .find(|round| *round >= value)
        .unwrap_or(value)
}

fn short(value: f64) -> String {
    if value.fract() == 0.0 {
        format!("{value}")
    } else {
        format!("{value:.2}")
    }
}

const WIDTH: f64 = 640.0;
const HEIGHT: f64 = 320.0;
const LEFT: f64 = 70.0;
const TOP: f64 = 34.0;
const BOTTOM: f64 = 50.0;
const MARGIN: f64 = 20.0;
const COLOURS: [&str; 4] = ["#2a78d6", "#d6602a", "#2a9d5c", "#8a4fd6"];
