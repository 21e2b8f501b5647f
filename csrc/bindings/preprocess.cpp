// Python face of csrc/preprocess.
#include <pybind11/native_enum.h>
#include <pybind11/numpy.h>
#include <pybind11/operators.h>
#include <pybind11/stl.h>

#include "bindings/register.hpp"
#include "bindings/unlocked.hpp"
#include "preprocess/gpu.hpp"
#include "preprocess/host.hpp"
#include "preprocess/resampling.hpp"
#include "preprocess/rows.hpp"
#include "preprocess/table.hpp"

namespace py = pybind11;

namespace trtinfer::bindings {

namespace {

using preprocess::ChannelOrder;
using preprocess::Dtype;
using preprocess::Filter;
using preprocess::GpuPreprocessor;
using preprocess::GpuTiming;
using preprocess::HostPreprocessor;
using preprocess::ImageView;
using preprocess::PassOrder;
using preprocess::Recipe;
using preprocess::Resize;

py::dtype dtype_of(const Recipe& recipe) {
  return py::dtype(recipe.dtype == Dtype::kFloat32 ? "float32" : "float16");
}

// Borrows a height x width x 3 uint8 array whose rows may lie apart.
ImageView view_of(const py::array& image) {
  // The stride of an axis of length 1 means nothing.
  const bool fits = image.dtype().kind() == 'u' && image.itemsize() == 1 && image.ndim() == 3 &&
                    image.shape(2) == 3 && image.strides(2) == 1 &&
                    (image.shape(1) == 1 || image.strides(1) == 3);
  if (!fits) {
    throw py::value_error("expected a uint8 array of height x width x 3 with whole rows, got " +
                          py::repr(image.attr("dtype")).cast<std::string>() + " of shape " +
                          py::repr(image.attr("shape")).cast<std::string>() + " and strides " +
                          py::repr(image.attr("strides")).cast<std::string>());
  }
  if (image.shape(0) > INT32_MAX || image.shape(1) > INT32_MAX)
    throw py::value_error("the image has a side above 2^31 - 1 pixels");
  return {static_cast<const std::uint8_t*>(image.data()), static_cast<int>(image.shape(0)),
          static_cast<int>(image.shape(1)), image.strides(0)};
}

py::array run(const HostPreprocessor& preprocessor, const py::array& image) {
  const ImageView view = view_of(image);
  py::array output(dtype_of(preprocessor.recipe()),
                   preprocessor.output_shape(view.height, view.width));
  void* destination = output.mutable_data();
  {
    const Unlocked unlocked;
    preprocessor.run(view, destination);
  }
  return output;
}

std::vector<ImageView> views_of(const std::vector<py::array>& images) {
  std::vector<ImageView> views;
  views.reserve(images.size());
  for (const py::array& image : images) views.push_back(view_of(image));
  return views;
}

py::array preprocess_gpu(const Recipe& recipe, const std::vector<py::array>& images) {
  const std::vector<ImageView> views = views_of(images);
  const GpuPreprocessor preprocessor(recipe);
  const auto [channels, height, width] = preprocessor.output_shape();
  py::array output(dtype_of(recipe),
                   std::vector<py::ssize_t>{std::ssize(images), channels, height, width});
  void* destination = output.mutable_data();
  const Unlocked unlocked;
  preprocessor.run(views, destination);
  return output;
}

std::vector<GpuTiming> time_preprocess_gpu(const Recipe& recipe,
                                           const std::vector<py::array>& images, int repeats) {
  const std::vector<ImageView> views = views_of(images);
  const Unlocked unlocked;
  return GpuPreprocessor(recipe).time(views, repeats);
}

// Rows and columns of a source that its output is made of.
std::pair<int, int> source_window(const Recipe& recipe, std::int64_t height, std::int64_t width) {
  const preprocess::SourceWindow window =
      preprocess::Resampling(recipe, height, width).source_window();
  return {window.rows, window.columns};
}

void register_enums(py::module_& m) {
  py::native_enum<Resize>(m, "Resize", "enum.Enum")
      .value("NONE", Resize::kNone)
      .value("SHORT_SIDE", Resize::kShortSide)
      .value("EXACT", Resize::kExact)
      .value("LETTERBOX", Resize::kLetterbox)
      .finalize();
  py::native_enum<Filter>(m, "Filter", "enum.Enum")
      .value("BILINEAR", Filter::kBilinear)
      .value("BICUBIC", Filter::kBicubic)
      .value("OPENCV_LINEAR", Filter::kOpencvLinear)
      .finalize();
  py::native_enum<PassOrder>(m, "PassOrder", "enum.Enum")
      .value("HORIZONTAL_FIRST", PassOrder::kHorizontalFirst)
      .value("PILLOW13", PassOrder::kPillow13)
      .finalize();
  py::native_enum<ChannelOrder>(m, "ChannelOrder", "enum.Enum")
      .value("RGB", ChannelOrder::kRgb)
      .value("BGR", ChannelOrder::kBgr)
      .finalize();
  py::native_enum<Dtype>(m, "Dtype", "enum.Enum")
      .value("FLOAT32", Dtype::kFloat32)
      .value("FLOAT16", Dtype::kFloat16)
      .finalize();
}

}  // namespace

void register_preprocess(py::module_& m) {
  register_enums(m);
  py::class_<Recipe>(m, "Recipe")
      .def(py::init<>())
      .def_readwrite("resize", &Recipe::resize)
      .def_readwrite("resize_height", &Recipe::resize_height)
      .def_readwrite("resize_width", &Recipe::resize_width)
      .def_readwrite("filter", &Recipe::filter)
      .def_readwrite("pass_order", &Recipe::pass_order)
      .def_readwrite("crop_height", &Recipe::crop_height)
      .def_readwrite("crop_width", &Recipe::crop_width)
      .def_readwrite("pad_value", &Recipe::pad_value)
      .def_readwrite("channel_order", &Recipe::channel_order)
      .def_readwrite("scale", &Recipe::scale)
      .def_readwrite("mean", &Recipe::mean)
      .def_readwrite("std", &Recipe::std)
      .def_readwrite("dtype", &Recipe::dtype)
      .def("validate", &Recipe::validate)
      .def_property_readonly("has_fixed_output", &Recipe::has_fixed_output)
      .def(py::self == py::self);
  py::class_<HostPreprocessor, std::shared_ptr<HostPreprocessor>>(m, "HostPreprocessor")
      .def(py::init<const Recipe&, int>(), py::arg("recipe"), py::arg("threads") = 1)
      .def("output_shape", &HostPreprocessor::output_shape, py::arg("height"), py::arg("width"))
      .def("output_bytes", &HostPreprocessor::output_bytes, py::arg("height"), py::arg("width"))
      .def("__call__", &run, py::arg("image"));
  py::class_<GpuTiming>(m, "GpuTiming")
      .def_readonly("kernel", &GpuTiming::kernel)
      .def_readonly("launch", &GpuTiming::launch)
      .def_readonly("with_transfer", &GpuTiming::with_transfer);
  m.def("preprocess_gpu", &preprocess_gpu, py::arg("recipe"), py::arg("images"));
  m.def("time_preprocess_gpu", &time_preprocess_gpu, py::arg("recipe"), py::arg("images"),
        py::arg("repeats"));
  m.def("source_window", &source_window, py::arg("recipe"), py::arg("height"), py::arg("width"));
  m.def("allow_simd", &preprocess::allow_simd, py::arg("allowed"));
}

}  // namespace trtinfer::bindings
