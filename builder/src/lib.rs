//! Dockerfile to image: parser, graph of steps, layer cache
