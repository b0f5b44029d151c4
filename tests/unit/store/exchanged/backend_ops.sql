CREATE TABLE IF NOT EXISTS test_backend_ops (
  test_time TEXT,
  build_commit TEXT,
  backend_name TEXT,
  op_name TEXT,
  op_params TEXT,
  test_mode TEXT,
  supported INTEGER,
  passed INTEGER,
  error_message TEXT,
  time_us REAL,
  flops REAL,
  bandwidth_gb_s REAL,
  memory_kb INTEGER,
  n_runs INTEGER,
  device_description TEXT,
  backend_reg_name TEXT
);

INSERT INTO test_backend_ops (test_time, build_commit, backend_name, op_name, op_params, test_mode, supported, passed, error_message, time_us, flops, bandwidth_gb_s, memory_kb, n_runs, device_description, backend_reg_name) VALUES ('2026-11-30T12:00:00Z', '0c1e570', 'CPU', 'RWKV_WKV7', 'type=f32,head_count=32,head_size=64,n_seq_tokens=512,n_seqs=1', 'perf', '1', '1', '', '250.000000', '0.000000', '10.500000', '2752', '4096', '', '');
INSERT INTO test_backend_ops (test_time, build_commit, backend_name, op_name, op_params, test_mode, supported, passed, error_message, time_us, flops, bandwidth_gb_s, memory_kb, n_runs, device_description, backend_reg_name) VALUES ('2026-11-30T12:00:01Z', '0c1e570', 'CPU', 'L2_NORM', 'type=f32,ne=[64,64,320,1]', 'perf', '1', '1', '', '100.000000', '0.000000', '25.000000', '10240', '8192', '', '');
INSERT INTO test_backend_ops (test_time, build_commit, backend_name, op_name, op_params, test_mode, supported, passed, error_message, time_us, flops, bandwidth_gb_s, memory_kb, n_runs, device_description, backend_reg_name) VALUES ('2026-11-30T12:00:02Z', '0c1e570', 'CPU', 'CONV_3D', 'type=f32', 'perf', '0', '0', 'not supported', '0.000000', '0.000000', '0.000000', '0', '0', '', '');
