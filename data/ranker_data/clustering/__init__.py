"""TWIN-V2's offline step: past events become clusters, and the log stays an event log.

A clustered data set has the layout of its source; each row of its behaviours stands for
`cluster_size` events.
"""

# dense behaviour field with the number of events that a row stands for
CLUSTER_SIZE = "cluster_size"
