"""`labelstore report`: what the maps say of a data set, as one HTML file and a ranked list.

- `gather`: a store -> all that is reported (`Findings`)
- `photo_sizes`: the photographs' shapes, for crops as training draws them
- `plots`: findings -> pictures by matplotlib; `examples`: images with their maps, as small pictures
- `markup`: elements, escaped; `page`: findings -> the file
- `ranked`: the list of likely wrong labels as CSV
"""
