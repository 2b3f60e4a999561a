// Making the long-lived generator of a model on one device or on several.
#pragma once

#include "covenant/device_generator.h"
#include "device/training.h"

namespace covenant::device {

using CreateGenerator = cov_status (*)(void* model, const cov_generator_options* options,
                                       void** generator);

// As cov_device_generator_create; `create` is the backend's function for the kind of model.
cov_status create_generator(TrainingModel* model, CreateGenerator create,
                            const cov_generator_options* options, cov_device_generator** generator);

}  // namespace covenant::device
