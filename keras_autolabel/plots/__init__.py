"""Figures of what was learned; matplotlib is imported when one is drawn, and not before."""

from keras_autolabel.plots.comparisons import plot_accuracy_by_epsilon as plot_accuracy_by_epsilon
from keras_autolabel.plots.comparisons import plot_ece_by_severity as plot_ece_by_severity
from keras_autolabel.plots.examples import plot_examples as plot_examples
from keras_autolabel.plots.figure_1 import plot_figure_1 as plot_figure_1
from keras_autolabel.plots.reliability import plot_reliability as plot_reliability
from keras_autolabel.plots.reliability import plot_reliability_of_sums as plot_reliability_of_sums
from keras_autolabel.plots.tables import plot_bucket_calibration as plot_bucket_calibration
from keras_autolabel.plots.tables import plot_label_history as plot_label_history
