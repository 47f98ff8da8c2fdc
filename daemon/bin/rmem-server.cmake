# SPDX-License-Identifier: MIT
if(TARGET rmem_server)
  rmem_program(rmem-server rmem-server.cc)
  target_link_libraries(rmem-server PRIVATE rmem_server)
endif()
