"""The engine: units of work, the values they are about, and what runs them."""

from odefend.engine.adversarial import Reshown as Reshown
from odefend.engine.certify import Certify as Certify
from odefend.engine.craft import Craft as Craft
from odefend.engine.detector_specs import DetectorAware as DetectorAware
from odefend.engine.detector_specs import DetectorSpec as DetectorSpec
from odefend.engine.predict import Predict as Predict
from odefend.engine.runner import Runner as Runner
from odefend.engine.score import Score as Score
from odefend.engine.specs import DefenseSpec as DefenseSpec
from odefend.engine.specs import ModelSpec as ModelSpec
from odefend.engine.specs import Slice as Slice
from odefend.engine.specs import as_trained as as_trained
from odefend.engine.specs import opened_net as opened_net
from odefend.engine.specs import shards as shards
from odefend.engine.trace import Trace as Trace
from odefend.engine.unit import Task as Task
from odefend.engine.unit import Unit as Unit
