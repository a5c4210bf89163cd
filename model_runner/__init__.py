"""model_runner"""
