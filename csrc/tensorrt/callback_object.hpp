#pragma once

#include <array>
#include <atomic>
#include <cstddef>
#include <cstdint>
#include <typeinfo>
#include <utility>

namespace trtinfer::tensorrt {

/// An object with a vtable, as TensorRT expects of the interfaces that its user implements. Every
/// slot that it has no use for only notes that it was called, so that a library that speaks another
/// ABI is found out instead of jumping into nowhere.
class CallbackObject {
 public:
  using Slot = void (*)();
  static constexpr std::size_t kSlots = 24;

  /// `owner` is what the functions given to set() get back from owner_of().
  explicit CallbackObject(void* owner) : owner_(owner) {
    vtable_pointer_ = static_cast<const void*>(vtable_.slots.data());
    fill(std::make_index_sequence<kSlots>{});
  }
  CallbackObject(const CallbackObject&) = delete;
  CallbackObject& operator=(const CallbackObject&) = delete;

  template <typename Function>
  void set(int slot, Function* function) {
    vtable_.slots[static_cast<std::size_t>(slot)] = reinterpret_cast<Slot>(function);
  }

  /// Fills the first slots of IVersionedInterface: the language, and the name and version.
  void set_versioned(const char* name);

  /// The pointer that TensorRT gets.
  void* interface() { return static_cast<void*>(&vtable_pointer_); }

  /// The first unexpected slot that was called, -1 for none.
  int misused_slot() const { return misused_slot_.load(std::memory_order_relaxed); }

  static CallbackObject& from(void* interface) {
    return *reinterpret_cast<CallbackObject*>(interface);
  }
  void* owner() const { return owner_; }
  const char* name() const { return name_; }

 private:
  /// What precedes the functions is read by dynamic_cast only.
  struct Vtable {
    std::ptrdiff_t offset_to_top = 0;
    const std::type_info* type = &typeid(CallbackObject);
    std::array<Slot, kSlots> slots{};
  };

  template <int Index>
  static std::intptr_t misuse(void* interface) noexcept {
    int none = -1;
    from(interface).misused_slot_.compare_exchange_strong(none, Index);
    return 0;
  }

  template <std::size_t... Index>
  void fill(std::index_sequence<Index...>) {
    (set(static_cast<int>(Index), &misuse<static_cast<int>(Index)>), ...);
  }

  const void* vtable_pointer_ = nullptr;  // first: it is what makes this an object to TensorRT
  void* owner_;
  const char* name_ = "";
  std::atomic<int> misused_slot_{-1};
  Vtable vtable_;
};

template <typename Owner>
Owner& owner_of(void* interface) {
  return *static_cast<Owner*>(CallbackObject::from(interface).owner());
}

}  // namespace trtinfer::tensorrt
