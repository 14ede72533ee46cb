"""Trials known from elsewhere (``import``): results files, CSV files, Optuna storages."""
