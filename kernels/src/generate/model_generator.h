// A generator over a model on the CPU, with all that it consists of.
#pragma once

#include "generate/decoder.h"
#include "generate/generator.h"

namespace covenant {

struct ModelGenerator {
  ModelGenerator(cov_model& model, const GenerationWeights& weights, const GeneratorLimits& limits)
      : pages(model.memory, model.layout.attention, model.layout.layers,
              weights.type() != COV_WEIGHTS_F32),
        decoder(model, weights, pages),
        generator(model.shape, model.pool, decoder, pages, limits) {}

  PageMemory pages;
  Decoder decoder;
  Generator generator;
};

}  // namespace covenant
