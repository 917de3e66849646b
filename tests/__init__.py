"""Tests of the converter and of the engine, with their doubles; one folder for each package and kind."""
