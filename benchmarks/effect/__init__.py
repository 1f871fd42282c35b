"""The parts of relabel_effect.py: scenes of several objects with one label, a teacher, students, and what tells them apart."""
