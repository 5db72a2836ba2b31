"""What Camtrap DP 1.0.2 demands of its tables and its descriptor, as Table Schema and JSON Schema.

Put down here from the standard's documentation, for the official files are fetched from the net,
and tests are not. A field is a name, a type, and its constraints; ``!`` behind a name: required.
"""

TIME = "%Y-%m-%dT%H:%M:%S%z"
PATH = r"^(?=^[^./~])(^((?!\.{2}).)*$).*$"


def _field(text, **constraints):
    name, kind = text.split()
    made = {"name": name.rstrip("!"), "type": kind}
    if kind == "datetime":
        made["format"] = TIME
    if kind == "key":
        made["type"], constraints["unique"] = "string", True
    made["constraints"] = {"required": name.endswith("!"), **constraints}
    return made


def _strings(names):
    return [_field(f"{name} string") for name in names.split()]


DEPLOYMENTS = [
    _field("deploymentID! key"),
    *_strings("locationID locationName"),
    _field("latitude! number", minimum=-90, maximum=90),
    _field("longitude! number", minimum=-180, maximum=180),
    _field("coordinateUncertainty integer", minimum=1),
    *(_field("deploymentStart! datetime"), _field("deploymentEnd! datetime")),
    *_strings("setupBy cameraID cameraModel"),
    _field("cameraDelay integer", minimum=0),
    *(_field("cameraHeight number", minimum=0), _field("cameraDepth number", minimum=0)),
    _field("cameraTilt integer", minimum=-90, maximum=90),
    _field("cameraHeading integer", minimum=0, maximum=360),
    _field("detectionDistance number", minimum=0),
    *(_field("timestampIssues boolean"), _field("baitUse boolean")),
    *_strings("featureType habitat deploymentGroups deploymentTags deploymentComments"),
]
MEDIA = [
    *(_field("mediaID! key"), _field("deploymentID! string")),
    _field("captureMethod string", enum=["activityDetection", "timeLapse"]),
    _field("timestamp! datetime"),
    _field("filePath! string", pattern=PATH),
    *(_field("filePublic! boolean"), _field("fileName string")),
    _field("fileMediatype! string", pattern="^(image|video|audio)/.*$"),
    *(_field("exifData any"), _field("favorite boolean"), _field("mediaComments string")),
]
OBSERVATIONS = [
    *(_field("observationID! key"), _field("deploymentID! string")),
    *_strings("mediaID eventID"),
    *(_field("eventStart! datetime"), _field("eventEnd! datetime")),
    _field("observationLevel! string", enum=["media", "event"]),
    _field(
        "observationType! string",
        enum=["animal", "human", "vehicle", "blank", "unknown", "unclassified"],
    ),
    _field("cameraSetupType string", enum=["setup", "calibration"]),
    _field("scientificName string"),
    _field("count integer", minimum=1),
    _field("lifeStage string", enum=["adult", "subadult", "juvenile"]),
    _field("sex string", enum=["female", "male"]),
    *_strings("behavior individualID"),
    _field("individualPositionRadius number", minimum=0),
    _field("individualPositionAngle number", minimum=-90, maximum=90),
    _field("individualSpeed number", minimum=0),
    *(_field(f"{name} number", minimum=0, maximum=1) for name in ("bboxX", "bboxY")),
    *(_field(f"{name} number", minimum=1e-15, maximum=1) for name in ("bboxWidth", "bboxHeight")),
    _field("classificationMethod string", enum=["human", "machine"]),
    *(_field("classifiedBy string"), _field("classificationTimestamp datetime")),
    _field("classificationProbability number", minimum=0, maximum=1),
    *_strings("observationTags observationComments"),
]


def _key(field, table):
    return {"fields": field, "reference": {"resource": table, "fields": field}}


TABLES = {
    "deployments": {"fields": DEPLOYMENTS, "primaryKey": "deploymentID"},
    "media": {
        "fields": MEDIA,
        "primaryKey": "mediaID",
        "foreignKeys": [_key("deploymentID", "deployments")],
    },
    "observations": {
        "fields": OBSERVATIONS,
        "primaryKey": "observationID",
        "foreignKeys": [_key("deploymentID", "deployments"), _key("mediaID", "media")],
    },
}

_VERSIONED = {"type": "string", "format": "uri", "pattern": r"1\.0\.2"}
_DAY = {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}$"}
PROFILE = {
    "type": "object",
    "required": [
        *("resources", "profile", "created", "contributors", "project"),
        *("spatial", "temporal", "taxonomic"),
    ],
    "properties": {
        "profile": _VERSIONED,
        "created": {"type": "string", "pattern": r"^\d{4}-\d{2}-\d{2}T\d{2}:\d{2}:\d{2}(\.\d+)?Z$"},
        "contributors": {
            "type": "array",
            "minItems": 1,
            "items": {"type": "object", "required": ["title"]},
        },
        "licenses": {"type": "array", "minItems": 2, "items": {"required": ["scope"]}},
        "project": {
            "required": [
                *("title", "samplingDesign", "captureMethod", "individualAnimals"),
                "observationLevel",
            ],
            "properties": {
                "samplingDesign": {
                    "enum": [
                        *("simpleRandom", "systematicRandom", "clusteredRandom", "experimental"),
                        *("targeted", "opportunistic"),
                    ]
                },
                "captureMethod": {
                    "type": "array",
                    "minItems": 1,
                    "items": {"enum": ["activityDetection", "timeLapse"]},
                },
                "individualAnimals": {"type": "boolean"},
                "observationLevel": {"type": "array", "items": {"enum": ["media", "event"]}},
            },
        },
        "spatial": {
            "required": ["type", "coordinates"],
            "properties": {"type": {"enum": ["Point", "Polygon"]}},
        },
        "temporal": {"required": ["start", "end"], "properties": {"start": _DAY, "end": _DAY}},
        "taxonomic": {
            "type": "array",
            "items": {"type": "object", "required": ["scientificName"]},
        },
        "resources": {
            "type": "array",
            "minItems": 3,
            "items": {
                "required": ["name", "path", "profile", "schema"],
                "properties": {
                    "name": {"enum": ["deployments", "media", "observations"]},
                    "profile": {"enum": ["tabular-data-resource"]},
                    "schema": _VERSIONED,
                },
            },
        },
    },
}
