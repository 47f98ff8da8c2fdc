# SPDX-License-Identifier: MIT
rmem_program(rmemd rmemd.cc)
target_link_libraries(rmemd PRIVATE rmem_control)
