//! Pages and advice: what they hold, that they need no other file, and that they stay small.

use std::path::Path;

use serde_json::Value;

use super::{assert_refused, eplb, stdout, write};

/// The elements of a page or chart, checked to be nested as XML is; and its text.
fn elements(text: &str) -> (Vec<String>, String) {
    let (mut open, mut all, mut words): (Vec<String>, Vec<String>, String) = Default::default();
    let mut rest = text.strip_prefix("<!DOCTYPE html>").unwrap_or(text);
    while let Some(at) = rest.find('<') {
        words += &rest[..at];
        let end = at + rest[at..].find('>').expect("a tag that ends");
        let tag = &rest[at + 1..end];
        rest = &rest[end + 1..];
        if let Some(name) = tag.strip_prefix('/') {
            assert_eq!(open.pop().as_deref(), Some(name), "near {:?}", &rest[..rest.len().min(80)]);
            continue;
        }
        let name = tag.split([' ', '/']).next().unwrap().to_string();
        assert_eq!(tag.matches('"').count() % 2, 0, "{tag}");
        if !tag.ends_with('/') {
            open.push(name);
        }
        all.push(tag.to_string());
    }
    assert_eq!(open, [] as [String; 0]);
    (all, words + rest)
}

/// Nothing is loaded, and nothing runs.
fn assert_self_contained(text: &str) {
    let (elements, _) = elements(text);
    for tag in &elements {
        let name = tag.split(' ').next().unwrap();
        assert!(!["script", "link", "img", "iframe", "image", "use"].contains(&name), "{tag}");
        assert!(!tag.contains("href=") && !tag.contains("src="), "{tag}");
    }
    let other = text.replace("http://www.w3.org/2000/svg", "");
    assert!(!other.contains("http") && !other.contains("url(") && !other.contains("@import"));
}

fn run(args: &[&str]) -> String {
    let output = eplb(args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    stdout(&output)
}

/// A trace of the largest shape that has to be small, and two plans.
fn large(folder: &Path) -> [String; 3] {
    let [trace, a, b] =
        ["trace.npy", "a.json", "b.json"].map(|n| folder.join(n).to_str().unwrap().to_string());
    // Hardly a GPU is near the mean in any placement: every cell of every map is drawn.
    let shape =
        ["--layers", "94", "--experts", "128", "--windows", "24", "--drift", "0.4", "--family", "zipf:1.3"];
    run(&[&["generate", "--out", &trace], &shape[..]].concat());
    let shape = ["--replicas", "160", "--gpus", "32", "--nodes", "4", "--device", "cpu", "--preset", "gen00"];
    for (window, out) in [("0", &a), ("23", &b)] {
        run(&[&["plan", &trace, "--allow-duplicates", "--window", window, "--out", out], &shape[..]].concat());
    }
    [trace, a, b]
}

#[test]
fn a_page_of_94_layers_on_32_gpus_is_one_small_file_that_needs_no_other() {
    let folder = tempfile::tempdir().unwrap();
    let [trace, a, b] = large(folder.path());
    let (out, charts) = (folder.path().join("r.html"), folder.path().join("charts"));
    let (out, charts) = (out.to_str().unwrap(), charts.to_str().unwrap());
    let said = run(&["report", &trace, &a, &b, "--expert-bytes", "1048576", "-o", out, "--svg", charts]);
    assert!(said.contains("r.html: 14 charts"), "{said}");
    let page = std::fs::read_to_string(out).unwrap();
    assert!(page.len() < 800_000, "{}", page.len());
    assert_self_contained(&page);
    let (tags, words) = elements(&page);
    let count = |name: &str| tags.iter().filter(|tag| tag.split(' ').next() == Some(name)).count();
    assert_eq!(count("figure"), 14);
    assert_eq!(count("details"), 14, "a table beside every chart");
    // The number of every GPU of a layer in each of four placements.
    assert!(count("b") > 4 * 94 * 32);
    for part in [
        "94 layers of 128 experts; 160 replicas on 32 GPUs, 5 slots each, in 4 nodes",
        "Previous plan",
        "Balancedness of each layer",
        "Where the hottest experts of layer",
        "Moves from the previous plan",
        " GiB; ",
        "Each placement on each window",
    ] {
        assert!(words.contains(part), "{part}");
    }
    // One group of keys a chart; in that of a heat map every layer.
    let groups = tags.iter().filter(|tag| tag.contains("role=\"radiogroup\"")).count();
    assert_eq!(groups, 14);
    let of_map = tags.iter().skip_while(|tag| !tag.contains("\"Numbers: Plan\"")).skip(1);
    let of_map = of_map.take_while(|tag| !tag.starts_with("details"));
    assert_eq!(of_map.filter(|tag| tag.starts_with("input")).count(), 94);
    assert!(page.contains("prefers-color-scheme:dark") && page.contains("@media print"));
    let files: Vec<_> = std::fs::read_dir(charts).unwrap().flatten().map(|entry| entry.path()).collect();
    assert_eq!(files.len(), 14);
    for file in files {
        let chart = std::fs::read_to_string(&file).unwrap();
        assert_self_contained(&chart);
        assert!(chart.starts_with("<svg xmlns=") && chart.contains("<title>"));
        // The meaning of the colours, where there are several; and the page's words about the chart.
        let name = file.file_stem().unwrap().to_str().unwrap();
        let (_, words) = elements(&chart);
        let wanted = match name {
            _ if name.starts_with("load-") => {
                assert!(words.contains("L93 G31 "), "{name}");
                "1.05 to 1.15"
            }
            "replicas" => "6 replicas and more",
            _ => "",
        };
        for key in ["1.05 to 1.15", "6 replicas and more"] {
            assert_eq!(words.contains(key), key == wanted, "{name}: {key}");
        }
        assert_eq!(words.contains("Dashed: an even spread"), name.starts_with("sorted-"), "{name}");
    }
}

#[test]
fn numbers_on_a_page_are_those_of_the_loads() {
    let folder = tempfile::tempdir().unwrap();
    let loads = write(folder.path(), "a<b&\"c.json", b"[[90,30,20,10],[0,0,0,0]]");
    let [plan, out] = ["plan.json", "r.html"].map(|n| folder.path().join(n).to_str().unwrap().to_string());
    run(&["plan", &loads, "--replicas", "6", "--gpus", "3", "--device", "cpu", "--out", &plan]);
    let charts = folder.path().join("charts");
    run(&["report", &loads, &plan, "-o", &out, "--svg", charts.to_str().unwrap()]);
    let page = std::fs::read_to_string(&out).unwrap();
    let (_, words) = elements(&page);
    assert!(words.contains("a&lt;b&amp;&quot;c.json"));
    // Trivial: 90/2 + 30/2, 20 + 10, 90/2 + 30/2; the mean is 50.
    let chart = std::fs::read_to_string(charts.join("load-trivial.svg")).unwrap();
    let (_, of_chart) = elements(&chart);
    for part in ["L0 G0 1.20", "L0 G1 0.60", "L0 G2 1.20"] {
        assert!(of_chart.contains(part), "{part}");
    }
    for (layer, row) in [("L0", ["1.20", "0.60", "1.20"]), ("L1", ["0.00"; 3])] {
        let cells: String = row.iter().map(|number| format!("<td><b>{number}</b></td>")).collect();
        let at = page.find(&format!("--r:'{layer} '")).expect("a row of numbers");
        assert!(page[at..].split("</tbody>").next().unwrap().contains(&cells), "{layer}");
    }
    assert!(words.contains("trivial 0.8333"));
    assert!(!words.contains("Moves from") && !words.contains("NaN") && !words.contains("inf"));
}

#[test]
fn maps_of_other_programs_have_pages_too() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let loads = write(folder.path(), "loads.json", b"[[90,30,20,10],[7,5,60,8]]");
    let (plan, out) = (path("plan.json"), path("r.html"));
    run(&["plan", &loads, "--replicas", "6", "--gpus", "3", "--device", "cpu", "--out", &plan]);
    let mut pages = Vec::new();
    for (format, name) in
        [("npy", "m.npy"), ("vllm", "v.json"), ("vllm-ascend", "a.json"), ("sglang", "s.json")]
    {
        let map = path(name);
        run(&["convert", &plan, &map, "--format", format]);
        let gpus: &[&str] = if format == "vllm-ascend" { &[] } else { &["--gpus", "3"] };
        run(&[&["report", &loads, &map, "-o", &out], gpus].concat());
        let (_, words) = elements(&std::fs::read_to_string(&out).unwrap());
        pages.push(words.replace(name, "map").split_once("Load of every GPU").unwrap().1.to_string());
        // The plan file tells the cluster of both.
        assert!(run(&["report", &loads, &map, &plan, "-o", &out]).contains("13 charts"));
    }
    assert!(pages.iter().all(|page| *page == pages[0]));
    let map = path("m.npy");
    assert_refused(&["report", &loads, &map, "-o", &out], "--gpus is needed");
    let bytes = ["report", &loads, &plan, "-o", &out, "--expert-bytes", "9"];
    assert_refused(&bytes, "--expert-bytes does nothing here: it is for what moves");
    assert_refused(&["report", &loads, &map, "--gpus", "4", "-o", &out], "is not a multiple of --gpus 4");
    assert_refused(&["report", &loads, &map, &plan, "--gpus", "3", "-o", &out], "--gpus does nothing here");
    let other = write(folder.path(), "other.json", b"[[1,2,3,4,5,6,7]]");
    assert_refused(&["report", &other, &map, "--gpus", "3", "-o", &out], "");
    // A map that does not fit is named: here experts of a group are on both nodes.
    let broken = write(folder.path(), "broken.json", b"[[0,2,1,3],[0,1,2,3]]");
    let nodes = ["--gpus", "4", "--groups", "2", "--nodes", "2", "-o", &out];
    assert_refused(&[&["report", &loads, &broken], &nodes[..]].concat(), "broken.json");
}

#[test]
fn replays_and_advice_have_charts_of_their_own() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let (trace, out) = (path("trace.npy"), path("r.html"));
    let shape = ["--layers", "2", "--experts", "16", "--windows", "4", "--drift", "0.2"];
    run(&[&["generate", "--out", &trace], &shape[..]].concat());
    let shape = ["--replicas", "24", "--gpus", "4", "--device", "cpu", "--strategy", "forecast", "--json"];
    let replay =
        write(folder.path(), "replay.json", run(&[&["replay", &trace], &shape[..]].concat()).as_bytes());
    let advice = run(&[
        "advise", &trace, "--gpus", "4", "--nodes", "1,2", "--groups", "2", "--device", "cpu", "--json",
    ]);
    let advice = write(folder.path(), "advice.json", advice.as_bytes());
    run(&["report", "--replay", &replay, "--advice", &advice, "-o", &out]);
    let page = std::fs::read_to_string(&out).unwrap();
    assert_self_contained(&page);
    for part in ["oracle", "never move", "limit, 2 nodes", "replicas of a layer"] {
        assert!(page.contains(part), "{part}");
    }
    assert_refused(&["report", "--replay", &advice, "-o", &out], "holds no window's balancedness");
    let other = write(folder.path(), "other.json", b"{}");
    assert_refused(&["report", "--advice", &other, "-o", &out], "is not what eplb advise --json prints");
    assert_refused(&["report", "--advice", &advice, "-o", &advice], "it is an input of this command");
    assert_refused(&["report", &trace, "-o", &out], "PLAN");
}

#[test]
fn advice_is_a_command_that_runs() {
    let folder = tempfile::tempdir().unwrap();
    let loads = folder.path().join("it's.npy").to_str().unwrap().to_string();
    run(&["generate", "--layers", "3", "--experts", "32", "--family", "lognormal:1", "--out", &loads]);
    let args = ["advise", &loads, "--gpus", "8", "--expert-bytes", "1000", "--device", "cpu"];
    let advice: Value = serde_json::from_str(&run(&[&args[..], &["--json"]].concat())).unwrap();
    assert_eq!(advice["worth_it"], true);
    let rows = advice["rows"].as_array().unwrap();
    assert_eq!(rows[0]["replicas"], 32);
    // 3 layers, one more slot.
    assert_eq!(rows[1]["more_bytes_per_gpu"], 3000);
    let time = |row: &Value| row["time"].as_f64().unwrap();
    let least = rows.iter().map(time).fold(f64::INFINITY, f64::min);
    let taken = rows.iter().find(|row| row["replicas"] == advice["replicas"]).unwrap();
    assert!(time(taken) <= least + 0.01 * advice["trivial_time"].as_f64().unwrap());
    for row in rows {
        assert!(row["balancedness"].as_f64().unwrap() <= row["limit"].as_f64().unwrap() + 1e-9, "{row}");
    }
    let text = run(&args);
    let command = advice["command"].as_str().unwrap();
    assert!(text.ends_with(&format!("{command}\n")), "{text}");
    assert!(command.contains(r"it'\''s.npy'"), "{command}");
    let shell = format!("{} --device cpu", command.replacen("eplb", env!("CARGO_BIN_EXE_eplb"), 1));
    #[cfg(unix)]
    {
        let mut ran = std::process::Command::new("sh");
        let ran =
            ran.args(["-c", &shell]).current_dir(folder.path()).env("NODEVICE_SELECT", "1").output().unwrap();
        assert!(ran.status.success(), "{}", String::from_utf8_lossy(&ran.stderr));
        assert!(folder.path().join("plan.json").exists());
    }
}

#[test]
fn advice_has_a_command_for_every_number_of_nodes() {
    let folder = tempfile::tempdir().unwrap();
    let loads = folder.path().join("loads.npy").to_str().unwrap().to_string();
    run(&["generate", "--layers", "3", "--experts", "32", "--family", "lognormal:1", "--out", &loads]);
    let args = ["advise", &loads, "--gpus", "8", "--nodes", "1,2,4", "--groups", "8", "--device", "cpu"];
    let part = ["--window", "0", "--layers", "1..3", "--load-format", "npy"];
    let args = [&args[..], &part].concat();
    let advice: Value = serde_json::from_str(&run(&[&args[..], &["--json"]].concat())).unwrap();
    let text = run(&args);
    let others = advice["other_commands"].as_array().unwrap();
    let commands: Vec<&str> =
        others.iter().chain([&advice["command"]]).map(|command| command.as_str().unwrap()).collect();
    for nodes in ["--nodes 2", "--nodes 4"] {
        assert_eq!(commands.iter().filter(|command| command.contains(nodes)).count(), 1, "{commands:?}");
    }
    assert_eq!(commands.len(), 3);
    // Of the same part of the file.
    assert!(commands.iter().all(|command| command.contains(&part.join(" "))), "{commands:?}");
    assert!(commands.iter().all(|command| text.contains(&format!("\n{command}\n"))), "{text}");
    assert!(text.contains("<- take in ") && text.contains(" GPUs in ") && text.contains("\nIn "), "{text}");
}

#[test]
fn advice_says_where_balance_is_not_worth_it() {
    let folder = tempfile::tempdir().unwrap();
    let even = write(folder.path(), "even.json", b"[[10,10,10,10,10,10,10,11]]");
    let args = ["advise", even.as_str(), "--gpus", "4", "--device", "cpu"];
    assert!(run(&args).contains("Not worth it"));
    let uneven = write(folder.path(), "uneven.json", b"[[90,10,10,10,10,10,10,11]]");
    let args = ["advise", uneven.as_str(), "--gpus", "4", "--device", "cpu"];
    assert!(run(&args).contains("Take "));
    assert!(run(&[&args[..], &["--knee", "3"]].concat()).contains("Not worth it"));
    let output = eplb(&[&args[..], &["--knee", "0.9"]].concat());
    assert!(String::from_utf8(output.stderr).unwrap().contains("is not between 1 and 100"));
    assert_refused(&["advise", &even, "--gpus", "0"], "--gpus 0 is not at least 1");
    assert_refused(
        &["advise", &even, "--gpus", "4", "--nodes", "3"],
        "--gpus 4 is not a multiple of --nodes 3",
    );
}

#[test]
fn charts_of_an_earlier_run_are_named() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let (plan, charts) = (path("plan.json"), path("charts"));
    run(&["plan", &loads, "--replicas", "12", "--gpus", "4", "--device", "cpu", "--out", &plan]);
    let draw = || {
        let output = eplb(&["report", &loads, &plan, "--svg", &charts]);
        assert!(output.status.success(), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    };
    // Twice the same charts leave none.
    assert_eq!([draw(), draw()], ["", ""]);
    write(folder.path(), "charts/windows.svg", b"old");
    write(folder.path(), "charts/notes.txt", b"mine");
    assert_eq!(draw(), format!("eplb: warning: not of this run, and still in {charts}: windows.svg\n"));
}

#[test]
fn gpus_that_are_gone_are_left_out_and_the_others_keep_their_numbers() {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name).to_str().unwrap().to_string();
    let loads = write(folder.path(), "loads.json", b"[[1,2,3,4,5,60,7,8]]");
    let (plan, left, page) = (path("plan.json"), path("left.json"), path("page.html"));
    run(&["plan", &loads, "--replicas", "12", "--gpus", "4", "--device", "cpu", "--out", &plan]);
    let without =
        ["plan", &loads, "--previous", &plan, "--without-gpus", "1", "--device", "cpu", "--out", &left];
    let made: Value = serde_json::from_str(&run(&[&without[..], &["--json"]].concat())).unwrap();
    run(&["report", &loads, &left, "--out", &page]);
    let text = std::fs::read_to_string(&page).unwrap();
    assert_self_contained(&text);
    let (_, words) = elements(&text);
    assert!(words.contains("on 3 GPUs") && words.contains("GPU 1 is gone, and not shown."));
    assert!(words.contains(&format!("{:.4}", made["balancedness"].as_f64().unwrap())));
    // On which GPUs expert 5 lives.
    let file: Value = serde_json::from_str(&std::fs::read_to_string(&left).unwrap()).unwrap();
    let slots = file["physical_to_logical"][0].as_array().unwrap();
    let homes: Vec<String> = (0..4)
        .filter(|gpu| slots[gpu * 3..gpu * 3 + 3].contains(&5.into()))
        .map(|gpu| gpu.to_string())
        .collect();
    assert!(homes.len() > 1 && homes.iter().any(|gpu| gpu == "3"), "{homes:?}");
    assert!(text.contains(&format!("<td>{}</td>", homes.join(", "))), "{homes:?}");
    // From a plan of before it went, and back to one.
    let pages = [[&plan, &left], [&left, &plan]].map(|[old, new]| {
        run(&["report", &loads, old, new, "--out", &page]);
        std::fs::read_to_string(&page).unwrap()
    });
    for text in &pages {
        assert_self_contained(text);
        assert!(text.contains("Earlier plans are shown on the GPUs that they had."));
    }
    let moved = format!("{} slots receive an expert", made["moves"]["received"]);
    let lost = format!("come from disk: {}.", made["moves"]["lost"].as_array().unwrap().len());
    assert!(pages[0].contains(&moved) && pages[0].contains(&lost), "{moved}, {lost}");
    // Nothing is lost where a GPU comes back, and all that it has is received.
    assert!(!pages[1].contains("come from disk") && pages[1].contains("on 4 GPUs"));
    let other = path("other.json");
    run(&["plan", &loads, "--replicas", "12", "--gpus", "6", "--device", "cpu", "--out", &other]);
    assert_refused(
        &["report", &loads, &other, &left, "--out", &page],
        "its 12 replicas, 6 GPUs, 1 nodes, 1 groups are not those of the last plan, 9 replicas, 4 GPUs (gone: 1)",
    );
}
