//! How an image was made, as a predicate of an in-toto statement (*SLSA v1.0 "Provenance"*).

use super::graph::PROXIES;
use super::solve::{BuildRequest, Built};
use crate::base::Timestamp;
use crate::step::Material;
use serde_json::{Map, Value, json};

/// Type of the predicate.
pub const PREDICATE: &str = "https://slsa.dev/provenance/v1";
/// What the members of `buildDefinition` mean: those of a Dockerfile's build.
const BUILD_TYPE: &str = "urn:bulkhead:dockerfile:1";

/// A build that is over, as it is told of.
#[derive(Debug)]
pub struct Provenance<'p> {
    /// Tells build arguments, labels, the Dockerfile and every step as well; without it, nothing of those.
    pub max: bool,
    /// Who vouches for what is said here (`builder-id`).
    pub builder: &'p str,
    /// The build.
    pub request: &'p BuildRequest,
    /// What it led to.
    pub built: &'p Built,
    /// The Dockerfile: its path, and its text.
    pub dockerfile: (&'p str, &'p str),
    /// Where the context is from, if it is no directory of this machine.
    pub source: Option<&'p Material>,
    /// What was fetched or stood on.
    pub materials: &'p [Material],
    /// A number that no other build has.
    pub invocation: &'p str,
    /// When it began and ended.
    pub times: (Timestamp, Timestamp),
}

fn resource(material: &Material) -> Map<String, Value> {
    let value = json!({ "uri": material.uri, "digest": { material.algorithm: material.digest } });
    if let Value::Object(map) = value { map } else { Map::new() }
}

/// Makes the predicate.
pub fn provenance(of: &Provenance<'_>) -> Value {
    let settings = &of.request.settings;
    let mut source = of.source.map(resource).unwrap_or_default();
    source.insert("path".to_owned(), of.dockerfile.0.into());
    let mut request = json!({ "frontend": "dockerfile.v0", "platform": settings.platform.to_string() });
    let mut inside = json!({ "builderPlatform": settings.build_platform.to_string() });
    if let Some(target) = &settings.target {
        request["target"] = target.as_str().into();
    }
    if of.max {
        // Proxies leave no trace in an image, nor beside it: their addresses may hold passwords.
        let told = |(name, _): &&(String, String)| !PROXIES.contains(&name.as_str());
        let object = |pairs: &[(String, String)]| -> Map<String, Value> {
            pairs.iter().filter(told).map(|(name, value)| (name.clone(), value.as_str().into())).collect()
        };
        request["args"] = object(&settings.build_args).into();
        request["labels"] = object(&settings.labels).into();
        inside["dockerfile"] = of.dockerfile.1.into();
        let step =
            |step: &crate::image::StepRecord| json!({ "title": step.title, "key": step.key, "done": step.created });
        let stage = |stage: &crate::image::CacheImage| -> Vec<Value> { stage.steps.iter().map(step).collect() };
        inside["stages"] = of.built.stages.iter().map(stage).collect();
    }
    let materials: Vec<_> = of.source.into_iter().chain(of.materials).map(resource).collect();
    json!({
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": { "configSource": source, "request": request },
            "internalParameters": inside,
            "resolvedDependencies": materials,
        },
        "runDetails": {
            "builder": { "id": of.builder },
            "metadata": { "invocationId": of.invocation, "startedOn": of.times.0, "finishedOn": of.times.1 },
        },
    })
}
