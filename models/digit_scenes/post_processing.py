"""How detections are chosen from the network's boxes, in every export that does it itself and in the cards of those that do not."""

SCORE_THRESHOLD = 0.02
IOU_THRESHOLD = 0.5
MAXIMUM_PER_CLASS = 20
MAXIMUM_DETECTIONS = 30
