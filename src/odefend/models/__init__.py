"""Classifiers, models of images, and their checkpoints. `MODELS` maps a net's name to the function that builds it untrained,
`IMAGE_MODELS` that of a model of images."""

from odefend.models.adapt import Adapted as Adapted
from odefend.models.adapt import adapt as adapt
from odefend.models.autoencoder import Autoencoder as Autoencoder
from odefend.models.beside import model_beside as model_beside
from odefend.models.card import Card as Card
from odefend.models.card import Epoch as Epoch
from odefend.models.card import ImageCard as ImageCard
from odefend.models.card import Mean as Mean
from odefend.models.card import Measured as Measured
from odefend.models.card import Trained as Trained
from odefend.models.catalogue import cards as cards
from odefend.models.catalogue import fetch as fetch
from odefend.models.catalogue import image_cards as image_cards
from odefend.models.catalogue import load as load
from odefend.models.catalogue import load_image_model as load_image_model
from odefend.models.catalogue import weights_of as weights_of
from odefend.models.checkpoint import save as save
from odefend.models.checkpoint import weights_digest as weights_digest
from odefend.models.classifier import Classifier as Classifier
from odefend.models.classifier import Prediction as Prediction
from odefend.models.classifier import check_evaluating as check_evaluating
from odefend.models.classifier import check_ids as check_ids
from odefend.models.classifier import check_images as check_images
from odefend.models.classifier import checked_labels as checked_labels
from odefend.models.classifier import join as join
from odefend.models.families import IMAGE_MODELS as IMAGE_MODELS
from odefend.models.families import MODELS as MODELS
from odefend.models.glow import Glow as Glow
from odefend.models.image_model import ImageModel as ImageModel
from odefend.models.layers import count_parameters as count_parameters
from odefend.models.odenet import ODENet as ODENet
from odefend.models.resnet import ResNet as ResNet
from odefend.models.settings import SolverSettings as SolverSettings
