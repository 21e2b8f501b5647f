#include "preprocess/gpu.hpp"

#include <chrono>
#include <cstring>
#include <stdexcept>

#include "cuda/device.hpp"
#include "cuda/error.hpp"
#include "cuda/memory.hpp"
#include "cuda/stream.hpp"
#include "preprocess/batch.hpp"
#include "preprocess/kernels.hpp"
#include "preprocess/table.hpp"

namespace trtinfer::preprocess {

namespace {

void require_fixed_output(const Recipe& recipe) {
  recipe.validate();
  if (!recipe.has_fixed_output()) {
    throw std::invalid_argument(
        "a batch needs outputs of one shape: give the recipe a crop, an exact size or a letterbox");
  }
}

void require_gpu() {
  const cuda::Probe found = cuda::probe();
  if (found.devices.empty()) throw std::runtime_error(found.reason);
}

std::size_t round_up(std::size_t bytes) { return (bytes + 15) / 16 * 16; }

}  // namespace

struct GpuPreprocessor::State {
  explicit State(const Recipe& r) : recipe(r), cache(r), table(cuda::allocate_device(kTableBytes)) {
    const Geometry geometry = make_geometry(recipe, 1, 1);
    height = geometry.output_height;
    width = geometry.output_width;
    const NormalizationTable values = make_table(recipe);
    const bool half = recipe.dtype == Dtype::kFloat16;
    const void* source = half ? static_cast<const void*>(values.float16.data())
                              : static_cast<const void*>(values.float32.data());
    const std::size_t bytes = static_cast<std::size_t>(kTableSize) * recipe.element_bytes();
    const cuda::Stream stream;
    cuda::copy_async(table.get(), source, bytes, stream);
    stream.synchronize();
  }

  static constexpr std::size_t kTableBytes = kTableSize * sizeof(float);

  const Recipe recipe;
  mutable ResamplingCache cache;
  cuda::DeviceMemory table;
  int height = 0, width = 0;
};

namespace {

// A batch with its pixels and outputs, in pinned and in device memory.
class StagedBatch {
 public:
  StagedBatch(const GpuPreprocessor& preprocessor, std::span<const ImageView> images)
      : preprocessor_(preprocessor), images_(static_cast<int>(images.size())) {
    for (const ImageView& image : images)
      resamplings_.push_back(preprocessor.resampling(image.height, image.width));
    measure();
    pinned_input_ = cuda::allocate_pinned(input_bytes_);
    device_input_ = cuda::allocate_device(input_bytes_);
    pinned_output_ = cuda::allocate_pinned(output_bytes());
    device_output_ = cuda::allocate_device(output_bytes());
    fill(images);
  }

  std::size_t output_bytes() const { return preprocessor_.output_bytes() * images_; }
  const void* output() const { return pinned_output_.get(); }
  const cuda::Stream& stream() const { return stream_; }

  void upload() {
    cuda::copy_async(device_input_.get(), pinned_input_.get(), input_bytes_, stream_);
  }
  void launch() {
    preprocessor_.launch(device_input_.get(), images_, device_output_.get(), stream_.get());
  }
  void download() {
    cuda::copy_async(pinned_output_.get(), device_output_.get(), output_bytes(), stream_);
  }
  void finish() { stream_.synchronize(); }

 private:
  // The batch comes first, then the window of every image, each aligned to 16 bytes.
  void measure() {
    for (const auto& resampling : resamplings_) sources_.push_back({resampling.get(), nullptr, 0});
    input_bytes_ = round_up(batch_bytes(sources_));
    for (std::size_t i = 0; i < sources_.size(); ++i) {
      const SourceWindow window = resamplings_[i]->source_window();
      const std::size_t pitch = round_up(static_cast<std::size_t>(window.columns) * 3);
      pixels_at_.push_back(input_bytes_);
      sources_[i].row_stride = static_cast<std::ptrdiff_t>(pitch);
      input_bytes_ += pitch * window.rows;
    }
  }

  void fill(std::span<const ImageView> images) {
    for (std::size_t i = 0; i < images.size(); ++i) {
      const SourceWindow window = resamplings_[i]->source_window();
      const std::ptrdiff_t stride = sources_[i].row_stride;
      auto* to = reinterpret_cast<std::uint8_t*>(pinned_input_.get()) + pixels_at_[i];
      for (int y = 0; y < window.rows; ++y) {
        const std::uint8_t* row = images[i].data + (window.first_row + y) * images[i].row_stride;
        std::memcpy(to + y * stride, row + std::ptrdiff_t{3} * window.first_column,
                    std::size_t{3} * window.columns);
      }
      // Where row 0, column 0 would be; the kernel reads inside the window only.
      sources_[i].data = reinterpret_cast<const std::uint8_t*>(device_input_.get()) +
                         pixels_at_[i] - window.first_row * stride -
                         std::ptrdiff_t{3} * window.first_column;
    }
    write_batch(sources_, pinned_input_.get());
  }

  const GpuPreprocessor& preprocessor_;
  const int images_;
  std::vector<std::shared_ptr<const Resampling>> resamplings_;
  std::vector<BatchSource> sources_;
  std::vector<std::size_t> pixels_at_;
  std::size_t input_bytes_ = 0;
  cuda::Stream stream_;
  cuda::PinnedMemory pinned_input_, pinned_output_;
  cuda::DeviceMemory device_input_, device_output_;
};

template <class Work>
double microseconds(const Work& work) {
  const auto start = std::chrono::steady_clock::now();
  work();
  return std::chrono::duration<double, std::micro>(std::chrono::steady_clock::now() - start)
      .count();
}

}  // namespace

GpuPreprocessor::GpuPreprocessor(const Recipe& recipe) {
  require_fixed_output(recipe);
  require_gpu();
  state_ = std::make_unique<State>(recipe);
}

std::array<std::int64_t, 3> GpuPreprocessor::output_shape() const noexcept {
  return {kChannels, state_->height, state_->width};
}

std::shared_ptr<const Resampling> GpuPreprocessor::resampling(std::int64_t height,
                                                              std::int64_t width) const {
  return state_->cache.get(height, width);
}

void GpuPreprocessor::launch(const void* batch, int images, void* output, void* stream) const {
  if (images == 0) return;
  launch_batch(state_->recipe,
               {batch, state_->table.get(), output, images, state_->height, state_->width}, stream);
}

void GpuPreprocessor::run(std::span<const ImageView> images, void* output) const {
  if (images.empty()) return;
  StagedBatch batch(*this, images);
  batch.upload();
  batch.launch();
  batch.download();
  batch.finish();
  std::memcpy(output, batch.output(), batch.output_bytes());
}

std::vector<GpuTiming> GpuPreprocessor::time(std::span<const ImageView> images, int repeats) const {
  StagedBatch batch(*this, images);
  batch.upload();
  const cuda::Event begin(cuda::EventKind::kTimed), end(cuda::EventKind::kTimed);
  std::vector<GpuTiming> timings(static_cast<std::size_t>(repeats));
  for (GpuTiming& timing : timings) {
    begin.record(batch.stream());
    batch.launch();
    end.record(batch.stream());
    batch.finish();
    timing.kernel = end.microseconds_since(begin);
    timing.launch = microseconds([&] {
      batch.launch();
      batch.finish();
    });
    timing.with_transfer = microseconds([&] {
      batch.upload();
      batch.launch();
      batch.download();
      batch.finish();
    });
  }
  return timings;
}

GpuPreprocessor::~GpuPreprocessor() = default;
GpuPreprocessor::GpuPreprocessor(GpuPreprocessor&&) noexcept = default;
GpuPreprocessor& GpuPreprocessor::operator=(GpuPreprocessor&&) noexcept = default;

const Recipe& GpuPreprocessor::recipe() const noexcept { return state_->recipe; }

std::size_t GpuPreprocessor::output_bytes() const noexcept {
  const auto [channels, height, width] = output_shape();
  return static_cast<std::size_t>(channels * height * width) * state_->recipe.element_bytes();
}

#if !TRTINFER_CUDA
void launch_batch(const Recipe&, const BatchLaunch&, void*) {
  throw cuda::Error(cuda::kNoDevice, "a build without CUDA");
}
#endif

}  // namespace trtinfer::preprocess
