//! The flow in a spec, through the testkit.

use flow_api::spec::{EventShape, ModelSpec, Spec};
use flow_api::testkit::{Subject, check_model};
use flow_plug_in as _;

#[test]
fn the_flow_conforms() {
    let spec: Spec<dyn ModelSpec> = "VectorFlow(flows: [Scale(log_scale: 0.3)])".parse().unwrap();
    let report = check_model(&Subject::new("Scale", 3), &spec, EventShape::Vector(3)).unwrap();
    assert!(report.items.contains(&"log-det"));
}
