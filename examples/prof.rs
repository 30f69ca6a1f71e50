use eplb_wgpu::trace::{LoadHistory, Window};
use eplb_wgpu::{Cluster, DeviceChoice, Planner, Preset};
fn main() {
    let a: Vec<String> = std::env::args().collect();
    let loads = LoadHistory::read(a[1].as_ref()).unwrap().loads(Window::Sum).unwrap();
    let hier = a.len() < 5 || a[4] == "hier";
    let cluster = if hier { Cluster::new(288, 8, 4, 32) } else { Cluster::new(288, 1, 1, 32) }.unwrap();
    let planner = Planner::new(DeviceChoice::Cpu).unwrap();
    let options = a[2].parse::<Preset>().unwrap().options();
    let mut f = 0;
    let n: usize = a[3].parse().unwrap();
    let pool = rayon::ThreadPoolBuilder::new().num_threads(1).build().unwrap();
    let mut best = f64::MAX;
    pool.install(|| for _ in 0..n {
        let t = std::time::Instant::now();
        f = planner.plan(&loads, &cluster, &options).unwrap().fingerprint();
        best = best.min(t.elapsed().as_secs_f64());
    });
    println!("{f:016x} best {:.3} ms", best * 1e3);
}
