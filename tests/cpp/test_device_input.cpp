// Inputs that lie on a GPU, for which host memory stands here.
#include <array>
#include <cstring>
#include <memory>

#include "add_one.hpp"
#include "check.hpp"

using namespace trtinfer::pipeline;

namespace {

/// Adds one to device inputs where a unit has them.
class ReadsDeviceInputs : public AddOne {
 public:
  TransferTimes run(const Batch& batch) override {
    for (const BatchUnit& unit : batch.units) {
      const DeviceInput* input = unit.device_input(0);
      if (input == nullptr) continue;
      std::memcpy((*unit.inputs)[0], input->data, input->bytes());
      ++read;
    }
    return AddOne::run(batch);
  }
  bool reads_device_inputs() const override { return true; }

  int read = 0;
};

void are_read_when_the_batch_runs() {
  const auto executor = std::make_shared<ReadsDeviceInputs>();
  const AddOnePipeline p({.capacity = 1, .max_batch_size = 1}, executor, nullptr);
  std::array<float, kWidth> memory{};
  Claim claim = p.pipeline->claim(1, {}, 0);
  CHECK(claim.reads_device_inputs());
  DeviceInput input;
  input.data = reinterpret_cast<const std::byte*>(memory.data());
  input.block_bytes = kRowBytes;
  claim.fill({input});
  memory = {5, 6};
  auto request = p.pipeline->make_request(1, true);
  p.pipeline->publish(std::move(claim), request, 0, 0, false);
  p.pipeline->wait(request);
  CHECK(is_answer(*request, 5) && executor->read == 1);
}

void are_forgotten_by_the_next_claim_of_the_slot() {
  const auto executor = std::make_shared<ReadsDeviceInputs>();
  const AddOnePipeline p({.capacity = 1, .max_batch_size = 1}, executor, nullptr);
  {
    DeviceInput input;
    input.data = reinterpret_cast<const std::byte*>(executor.get());  // never to be read
    p.pipeline->claim(1, {}, 0).fill({input});
  }
  CHECK(is_answer(*p.infer(3), 3) && executor->read == 0);
}

}  // namespace

int main() {
  are_read_when_the_batch_runs();
  are_forgotten_by_the_next_claim_of_the_slot();
}
