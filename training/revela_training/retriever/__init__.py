"""The retriever that trains: an adapter on a backbone, its embeddings, and the model it becomes."""
